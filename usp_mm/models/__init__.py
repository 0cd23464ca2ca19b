"""Models for mmpretrain: importing this module registers them."""

from .data_preprocessor import LatentDataPreprocessor
from .usp import USP
from .usp_classifier import USPClassifier
from .usp_decoder import USPDecoder
from .usp_head import USPHead
from .usp_vit import USPViT
from .weight_transfer import USPPretrained

__all__ = ['USP', 'LatentDataPreprocessor', 'USPClassifier', 'USPDecoder', 'USPHead', 'USPPretrained', 'USPViT']
