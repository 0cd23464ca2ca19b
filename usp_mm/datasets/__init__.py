"""Data sets, samplers and transforms: importing this module registers them."""

from .augmentations import PixelRandomErasing
from .dataset_wrappers import all_datasets, dataset_configs
from .epoch_index import EpochIndex
from .folder import ImageFolder
from .latent_cache import LatentCacheDataset
from .sample_requests import SampleRequests, random_labels
from .samplers import EpochInfiniteSampler, EpochSampler
from .transforms import NOISE_SEVERITIES, ADMCenterCrop, GaussianNoise, LoadImage, SeedBySample

__all__ = [
    'NOISE_SEVERITIES',
    'ADMCenterCrop',
    'EpochIndex',
    'EpochInfiniteSampler',
    'EpochSampler',
    'GaussianNoise',
    'ImageFolder',
    'LatentCacheDataset',
    'LoadImage',
    'PixelRandomErasing',
    'SampleRequests',
    'SeedBySample',
    'all_datasets',
    'dataset_configs',
    'random_labels',
]
