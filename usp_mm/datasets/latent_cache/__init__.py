"""Latents of a frozen VAE, computed once: written by `usp cache`, read by `LatentCacheDataset`."""

from .collate import collate_latents
from .dataset import LatentCacheDataset
from .manifest import read_manifest

__all__ = ['LatentCacheDataset', 'collate_latents', 'read_manifest']
