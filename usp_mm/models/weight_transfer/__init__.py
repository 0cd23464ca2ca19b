"""Start a model from pretrained weights: the one place that maps names and resizes position tables."""

from .denoiser import transfer_encoder
from .encoder import ENCODER_KEYS, encoder_weights, fit_pos_embed
from .init_cfg import USPPretrained
from .report import TransferReport

__all__ = ['ENCODER_KEYS', 'TransferReport', 'USPPretrained', 'encoder_weights', 'fit_pos_embed', 'transfer_encoder']
