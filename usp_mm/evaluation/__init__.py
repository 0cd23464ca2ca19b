"""Metrics of generated images. Importing this module registers them and the feature extractors."""

from .adm_metrics import ADMMetrics
from .denoising_loss import DenoisingLoss
from .extractors import ClassifierFeatures, PixelFeatures, TimmFeatures, features_of
from .feature_metrics import FeatureMetrics
from .inception import InceptionFeatures

__all__ = [
    'ADMMetrics',
    'ClassifierFeatures',
    'DenoisingLoss',
    'FeatureMetrics',
    'InceptionFeatures',
    'PixelFeatures',
    'TimmFeatures',
    'features_of',
]
