"""The transformer block that every stage shares, and what the generators put around it."""

from .block import TransformerBlock
from .embedders import LabelEmbedder, PatchEmbedder, TimestepEmbedder
from .init import init_vit_weights
from .modulation import FinalLayer, ModulatedBlock

__all__ = [
    'FinalLayer', 'LabelEmbedder', 'ModulatedBlock', 'PatchEmbedder', 'TimestepEmbedder', 'TransformerBlock',
    'init_vit_weights',
]  # fmt: skip
