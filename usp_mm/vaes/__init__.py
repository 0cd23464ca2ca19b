"""Frozen VAEs with a common interface that turns images into latents and back."""

from .base import LatentCodec
from .build import build_codec

__all__ = ['LatentCodec', 'build_codec']
