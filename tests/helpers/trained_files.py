"""Small trained-looking checkpoints of each kind, as tools/train.py writes them."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

import usp_mm
from helpers.small_world import load_leaf

LEAVES = dict(
    pretraining='configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py',
    classifier='configs/vit/vit-tiny_usp-pre_1xb64-coslr-10e_digits.py',
    generator='configs/sit/sit-tiny-p2_lightning_1xb64-2k_digits.py',
    diffusion='configs/dit/dit-tiny-p2_1xb64-2k_digits.py',
)
KINDS = ('pretraining', 'classifier', 'generator', 'diffusion')
DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def small_config(kind: str, vae: Path) -> Config:
    """A config of the demo, with networks of two blocks and this VAE."""
    cfg = load_leaf(LEAVES[kind])
    cfg.model.data_preprocessor.vae.path = str(vae)
    arch = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)
    network = cfg.model.get('denoiser') or cfg.model.backbone
    network.update(arch=arch, init_cfg=None)
    if kind == 'diffusion':
        cfg.model.sampler.num_steps = 3
    return cfg


def trained(kind: str, vae: Path, path: Path) -> Path:
    """A checkpoint with random numbers everywhere, and averaged weights that differ from the others."""
    cfg = small_config(kind, vae)
    model = MODELS.build(cfg.model)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: x if name.endswith(('pos_embed', 'steps')) else x + 0.05 * torch.randn(x.shape, generator=generator)
        if x.is_floating_point() else x
        for name, x in model.state_dict().items()
    }  # fmt: skip
    codec = model.data_preprocessor.codec
    record = dict(name='tiny', weight_hash=codec.weight_hash, scale=codec.scale, shift=codec.shift)
    meta = dict(cfg=cfg.pretty_text, epoch=3, iter=9, dataset_meta=dict(classes=DIGITS), vae=record)
    torch.save(dict(state_dict=state, meta=meta), path)
    return path


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (90, 70)) -> Path:
    """A picture of large coloured squares."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def load(path: Path | str, **kwargs):
    """`usp_mm.from_pretrained` on the CPU."""
    return usp_mm.from_pretrained(path, device='cpu', **kwargs)


def pixels(images) -> np.ndarray:
    """uint8[N, H, W, 3] of pictures of one size."""
    return np.stack([np.asarray(image) for image in images])
