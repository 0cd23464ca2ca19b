"""Frozen VAEs behind one contract: images in, latents out, and back."""

from .base import LatentCodec
from .build import build_codec

__all__ = ['LatentCodec', 'build_codec']
