"""The transformer block that every stage shares."""

from .block import TransformerBlock
from .init import init_vit_weights

__all__ = ['TransformerBlock', 'init_vit_weights']
