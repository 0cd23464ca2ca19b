"""Shapes of the presets' VAEs: networks on the meta device, without weights, for estimates of their cost."""

from typing import Any

import torch

from .base import LatentCodec
from .build import codec_spec
from .kl import KLAutoencoder, KLStructure
from .laptop import make_laptop_vae
from .sd import DeterministicCodec, DiffusersCodec, TinyCodec
from .tiny import make_tiny_vae

_F16 = (128, 128, 256, 256, 512)
_LAST = frozenset({4})
#: Published widths and depths of Stable Diffusion (arXiv 2112.10752), MAR (2406.11838) and VA-VAE (2501.01423).
STRUCTURES = {
    'sd-f8d4': KLStructure(128, (128, 256, 512, 512), 2, 4, 4),
    'sd-f8d4-mse': KLStructure(128, (128, 256, 512, 512), 2, 4, 4),
    'kl-f16d16': KLStructure(128, _F16, 2, 16, 16, _LAST),  # the decoder has none
    'va-f16d32': KLStructure(128, _F16, 2, 32, 32, _LAST, _LAST),
}


def _taesd() -> Any:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny()


def blank_codec(name: str) -> LatentCodec | None:
    """Build a codec of a preset whose network has shapes but no data; None for 'pixel', which has no network.

    Its `network_encode` and `network_decode` take tensors on the meta device.

    Raises:
        ValueError: The preset is unknown, or the shape of its network is not noted here.
    """
    row = codec_spec(name)
    if row['codec'] == 'pixel':
        return None
    shape = {key: row[key] for key in ('channels', 'stride', 'patch_size', 'scale')}
    with torch.device('meta'):
        if name == 'tiny':
            return DiffusersCodec(make_tiny_vae(), name=name, **shape)
        if name == 'laptop':
            return DeterministicCodec(make_laptop_vae(), name=name, **shape)
        if name == 'taesd':
            return TinyCodec(_taesd(), name=name, **shape)
        if name not in STRUCTURES:
            raise ValueError(f"the shape of VAE '{name}' is not noted: add it to STRUCTURES in usp_mm/vaes/shapes.py")
        return LatentCodec(KLAutoencoder(STRUCTURES[name]), name=name, **shape)
