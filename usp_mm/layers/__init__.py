"""The transformer block that every stage shares, and the generators' embedders, modulation and final layer."""

from .attention_weights import attention_weights
from .block import TransformerBlock
from .embedders import LabelEmbedder, PatchEmbedder, TimestepEmbedder
from .init import init_vit_weights
from .modulation import FinalLayer, ModulatedBlock
from .norm import LayerNorm, RMSNorm
from .options import BlockOptions, block_options
from .rope import RotaryPositions

__all__ = [
    'BlockOptions', 'FinalLayer', 'LabelEmbedder', 'LayerNorm', 'ModulatedBlock', 'PatchEmbedder', 'RMSNorm',
    'RotaryPositions', 'TimestepEmbedder', 'TransformerBlock', 'attention_weights', 'block_options', 'init_vit_weights',
]  # fmt: skip
