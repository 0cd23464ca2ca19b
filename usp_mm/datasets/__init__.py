"""Data sets, samplers and transforms: importing this module registers them."""

from .epoch_index import EpochIndex
from .folder import ImageFolder
from .latent_cache import LatentCacheDataset
from .requests import SampleRequests, random_labels
from .samplers import EpochInfiniteSampler, EpochSampler
from .transforms import ADMCenterCrop, LoadImage, SeedBySample

__all__ = [
    'ADMCenterCrop',
    'EpochIndex',
    'EpochInfiniteSampler',
    'EpochSampler',
    'ImageFolder',
    'LatentCacheDataset',
    'LoadImage',
    'SampleRequests',
    'SeedBySample',
    'random_labels',
]
