"""Kinds of checkpoints, their detection from names and shapes, and the formats that they can be converted to."""

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

_WB = r'\.(?:weight|bias)'
_BLOCK = rf'(?:attn\.(?:qkv|proj)|mlp\.fc[12]|norm[12]){_WB}'
_ENCODER = (
    rf'cls_token|pos_embed|patch_embed\.proj{_WB}|blocks\.\d+\.{_BLOCK}|(?:norm|fc_norm){_WB}'
    rf'|head{_WB}|head\.0\.(?:running_mean|running_var|num_batches_tracked)|head\.1{_WB}'
)
_DECODER = rf'mask_token|decoder_pos_embed|decoder_(?:embed|norm|pred){_WB}|decoder_blocks\.\d+\.{_BLOCK}'
_PLAIN_BLOCK = rf'(?:attn\.(?:qkv|proj)|mlp\.fc[12]|adaLN_modulation\.1){_WB}'
_DENOISER = (
    rf'pos_embed|x_embedder\.proj{_WB}|t_embedder\.mlp\.[02]{_WB}|y_embedder\.embedding_table\.weight'
    rf'|blocks\.\d+\.{_PLAIN_BLOCK}|final_layer\.(?:linear|adaLN_modulation\.1){_WB}'
)
_AFFINE = rf'|blocks\.\d+\.norm[12]{_WB}'
_LIGHTNING = rf'{_AFFINE}|blocks\.\d+\.(?:attn\.[qk]_norm|mlp\.w12|mlp\.w3){_WB}|final_layer\.norm_final{_WB}'
_PROJECTOR = rf'|projectors\.0\.[024]{_WB}'
_VAE = r'(?:encoder|decoder|quant_conv|post_quant_conv)\..+'


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        family: 'encoder', 'denoiser' or 'vae', which decides what it can be converted to; '' if only the file's names show it.
        names: Regular expression that matches every name that it may hold.
        description: Description for users.
    """

    family: str
    names: str
    description: str


# fmt: off
KINDS = {
    'usp_mm':       Kind('',         '.+',                           'a checkpoint of this package'),
    'usp-pretrain': Kind('encoder',  f'{_ENCODER}|{_DECODER}',       'official USP pretraining'),
    'mae':          Kind('encoder',  f'{_ENCODER}|{_DECODER}',       'MAE on pixels, with its decoder'),
    'timm':         Kind('encoder',  _ENCODER,                       "timm's ViT (also a USP or MAE encoder or classifier)"),
    'usp-dit':      Kind('denoiser', _DENOISER + _AFFINE,            'official USP DiT, affine norms'),
    'usp-sit':      Kind('denoiser', _DENOISER + _AFFINE,            'official USP SiT, affine norms'),
    'dit':          Kind('denoiser', _DENOISER,                      'DiT'),
    'sit':          Kind('denoiser', _DENOISER,                      'SiT'),
    'repa':         Kind('denoiser', _DENOISER + _AFFINE + _PROJECTOR, "REPA's SiT with its projector"),
    'lightningdit': Kind('denoiser', _DENOISER + _LIGHTNING,         'LightningDiT'),
    'diffusers':    Kind('denoiser', _DENOISER,                      "diffusers' DiTTransformer2DModel or DiTPipeline"),
    'kl16':         Kind('vae',      _VAE,                           'KL-16, 16 latent channels'),
    'vavae':        Kind('vae',      _VAE,                           'VA-VAE, 32 latent channels'),
}
# fmt: on
#: Output formats -> their descriptions for users.
TARGETS = {
    'usp_mm': 'what this package loads strictly',
    'official': 'the names of official USP, MAE, DiT, SiT, REPA and LightningDiT code',
    'timm': "timm's VisionTransformer",
    'diffusers': "a folder of diffusers' DiTPipeline",
    'safetensors': 'one set of weights under the official names',
}
#: Names that LightningDiT has and DiT does not.
LIGHTNING = ('feat_rope.', 'final_layer.norm_final.')
LIGHTNING_PARTS = re.compile(r'blocks\.\d+\.(?:attn\.[qk]_norm|mlp\.w12|mlp\.w3)\.')


def detect(shapes: Shapes, facts: Any = None) -> str:
    """Detect the kind of a file.

    Args:
        shapes: Shapes of one set of its weights by name, without the prefix `module.`.
        facts: Training arguments that the file holds beside the weights, an argparse.Namespace or dict, if any. Those of a
            SiT have a `path_type`.

    Raises:
        ValueError: No kind has such names.
    """
    if any(name.startswith(('backbone.', 'denoiser.')) for name in shapes):
        return 'usp_mm'
    if any(name.startswith('transformer_blocks.') for name in shapes):
        return 'diffusers'
    if 'x_embedder.proj.weight' in shapes:
        return _denoiser_kind(shapes, facts)
    if 'encoder.conv_in.weight' in shapes:
        return _vae_kind(shapes)
    if 'cls_token' in shapes and 'patch_embed.proj.weight' in shapes:
        if not any(name.startswith('decoder_') for name in shapes):
            return 'timm'
        return 'mae' if shapes['patch_embed.proj.weight'][1] == 3 else 'usp-pretrain'
    shown = ', '.join(f'{name} {list(shape)}' for name, shape in sorted(shapes.items())[:3])
    raise ValueError(f'{len(shapes)} tensors of no known kind ({shown}, …): expected one of {", ".join(KINDS)}')


def _denoiser_kind(shapes: Shapes, facts: Any) -> str:
    if any(name.startswith(LIGHTNING) or LIGHTNING_PARTS.match(name) for name in shapes):
        return 'lightningdit'
    if any(name.startswith('projectors.') for name in shapes):
        return 'repa'
    noted = vars(facts) if isinstance(facts, Namespace) else facts
    kind = 'sit' if isinstance(noted, dict) and 'path_type' in noted else 'dit'
    return f'usp-{kind}' if 'blocks.0.norm1.weight' in shapes else kind


def _vae_kind(shapes: Shapes) -> str:
    channels = shapes.get('post_quant_conv.weight', (0, 0))[1]
    kind = {16: 'kl16', 32: 'vavae'}.get(channels)
    if kind is None:
        raise ValueError(f'a VAE of {channels} latent channels: expected KL-16 (16) or VA-VAE (32)')
    return kind
