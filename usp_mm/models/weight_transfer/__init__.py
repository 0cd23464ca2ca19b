"""Initialisation from pretrained weights, including the mapping of names and the resizing of position tables."""

from .encoder import ENCODER_KEYS, encoder_weights, fit_pos_embed
from .init_cfg import USPPretrained
from .report import TransferReport
from .to_generator import transfer_encoder

__all__ = ['ENCODER_KEYS', 'TransferReport', 'USPPretrained', 'encoder_weights', 'fit_pos_embed', 'transfer_encoder']
