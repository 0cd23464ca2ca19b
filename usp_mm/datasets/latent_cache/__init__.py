"""Latents of a frozen VAE, computed once: written by `tools/cache_latents.py`, read by `LatentCacheDataset`."""

from .dataset import LatentCacheDataset
from .manifest import read_manifest

__all__ = ['LatentCacheDataset', 'read_manifest']
