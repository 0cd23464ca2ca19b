"""Data sets, samplers and transforms: importing this module registers them."""

from .epoch_index import EpochIndex
from .folder import ImageFolder
from .latent_cache import LatentCacheDataset
from .samplers import EpochSampler
from .transforms import LoadImage, SeedBySample

__all__ = ['EpochIndex', 'EpochSampler', 'ImageFolder', 'LatentCacheDataset', 'LoadImage', 'SeedBySample']
