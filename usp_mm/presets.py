"""Presets of model sizes, VAEs, transformer blocks and teachers, one row each.

`ARCHS` is Table 1 of USP (arXiv 2503.06132), with DiT's and SiT's S and MAE's huge, `VAES` its tables 3, 6 and 8f, `BLOCKS`
what Table 3 changes, `TEACHERS` REPA's encoders. Everything that a preset implies (channels, stride, patch size, decoder
width) is derived in code from its row, so that a config names a preset and nothing else.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

# fmt: off
#          encoder                                          MAE decoder (section 3.1)                            DiT/SiT at patch 2
ARCHS: dict[str, dict[str, int]] = {
    'tiny':  dict(depth=4,  num_heads=4,  embed_dims=128,  decoder_depth=2, decoder_heads=4,  decoder_dims=64),   # demo, tests
    'small': dict(depth=12, num_heads=6,  embed_dims=384,  decoder_depth=8, decoder_heads=16, decoder_dims=512),  # 33 M
    'base':  dict(depth=12, num_heads=12, embed_dims=768,  decoder_depth=8, decoder_heads=16, decoder_dims=512),  # 130 M
    'large': dict(depth=24, num_heads=16, embed_dims=1024, decoder_depth=8, decoder_heads=16, decoder_dims=512),  # 458 M
    'xl':    dict(depth=28, num_heads=16, embed_dims=1152, decoder_depth=8, decoder_heads=16, decoder_dims=512),  # 675 M
    'huge':  dict(depth=32, num_heads=16, embed_dims=1280, decoder_depth=8, decoder_heads=16, decoder_dims=512),  # 951 M; ViT-H 632 M
}

#                latent = channels × H/stride × W/stride; scale multiplies it; patch is the PatchConv's kernel on it.
#                A preset of another structure also needs its shapes in vaes/shapes.py; one of another class, vaes/build.py.
#                scale=None: per-channel statistics from a latent cache's manifest. source: hub id or file to download.
VAES: dict[str, dict[str, Any]] = {
    'sd-f8d4':     dict(codec='diffusers', channels=4,  stride=8,  scale=0.18215, patch_size=2,  source='stabilityai/sd-vae-ft-ema', licence='MIT'),  # default everywhere
    'sd-f8d4-mse': dict(codec='diffusers', channels=4,  stride=8,  scale=0.18215, patch_size=2,  source='stabilityai/sd-vae-ft-mse', licence='MIT'),
    'kl-f16d16':   dict(codec='kl',        channels=16, stride=16, scale=0.2325,  patch_size=1,  source='kl16.ckpt of LTH14/mar', licence='MIT'),      # Tables 6, 8f
    'va-f16d32':   dict(codec='kl',        channels=32, stride=16, scale=None,    patch_size=1,  source='vavae-imagenet256-f16d32-dinov2.pt of hustvl/vavae-imagenet256-f16d32-dinov2', licence='MIT'),  # Table 3
    'taesd':       dict(codec='taesd',     channels=4,  stride=8,  scale=1.0,     patch_size=2,  source='madebyollin/taesd', licence='MIT'),  # imitates sd-f8d4 at a fraction of its cost
    'tiny':        dict(codec='diffusers', channels=4,  stride=8,  scale=1.0,     patch_size=2,  source='usp train-vae', licence=''),  # demo, tests
    'laptop':      dict(codec='dc',        channels=4,  stride=4,  scale=1.0,     patch_size=2,  source='usp train-vae', licence=''),  # colour
    'pixel':       dict(codec='pixel',     channels=3,  stride=1,  scale=1.0,     patch_size=16, source='', licence=''),  # no VAE: the MAE baseline
}

#                LayerNorm, RMSNorm  GELU or SwiGLU MLP  2-D rotary positions  norm of queries and keys
BLOCKS: dict[str, dict[str, Any]] = {
    'plain':     dict(norm='layer',  mlp='gelu',         rope=False,           qk_norm=False),  # USP, MAE, DiT, SiT
    'lightning': dict(norm='rms',    mlp='swiglu',       rope=True,            qk_norm=False),  # LightningDiT (arXiv 2501.01423), Table 3
}

#          model of timm                             width  patch    REPA (arXiv 2410.06940) aligns SiT with these
TEACHERS: dict[str, tuple[str, int, int]] = {
    'dinov2-s': ('vit_small_patch14_dinov2',          384,  14),
    'dinov2-b': ('vit_base_patch14_dinov2',           768,  14),   # REPA's default
    'dinov2-l': ('vit_large_patch14_dinov2',         1024,  14),
    'dinov2-g': ('vit_giant_patch14_dinov2',         1536,  14),
}
# fmt: on


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """'; did you mean X?' for the closest of `valid`; '' if no similarity (0 to 1, 1 for equal names) reaches `cutoff`."""
    close = get_close_matches(str(name), sorted(str(v) for v in valid), n=1, cutoff=cutoff)
    return f"; did you mean '{close[0]}'?" if close else ''


def lookup(table: Mapping[str, Any], name: str, what: str) -> Any:
    """`table[name]`, or a ValueError that lists the valid names and the nearest one."""
    if name not in table:
        raise ValueError(f"unknown {what} '{name}': expected one of {sorted(table)}{nearest(name, table)}")
    return table[name]
