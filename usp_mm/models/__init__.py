"""Models, and what generators are trained and sampled by: importing this module registers them."""

from .data_preprocessor import LatentDataPreprocessor
from .dit import DiT, SiT
from .generator import LatentDiffusionGenerator
from .objectives import DDPMObjective, FlowObjective
from .samplers import AncestralSampler, DDIMSampler, ODESampler, SDESampler
from .usp import USP
from .usp_classifier import USPClassifier
from .usp_decoder import USPDecoder
from .usp_head import USPHead
from .usp_vit import USPViT
from .weight_transfer import USPPretrained

__all__ = [
    'USP',
    'AncestralSampler',
    'DDIMSampler',
    'DDPMObjective',
    'DiT',
    'FlowObjective',
    'LatentDataPreprocessor',
    'LatentDiffusionGenerator',
    'ODESampler',
    'SDESampler',
    'SiT',
    'USPClassifier',
    'USPDecoder',
    'USPHead',
    'USPPretrained',
    'USPViT',
]
