"""Tokens of an encoder after several of its blocks.

Shape legend: N samples, L patch tokens, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from .usp_vit import USPViT


def block_tokens(model: USPViT, latents: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """An encoder's tokens after blocks, [N, 1 + L, D] each, the class token first.

    Args:
        model: The encoder. The output of its last block is taken after the final norm.
        latents: Scaled latents [N, C, h, w].
        layers: Numbers of blocks, 1 … depth, in any order.
    """
    with _raw_outputs(model, sorted(set(layers))):
        hidden = dict(zip(sorted(set(layers)), model(latents), strict=True))
    return [hidden[k] for k in layers]


@contextmanager
def _raw_outputs(model: USPViT, layers: Sequence[int]) -> Iterator[None]:
    """Make the encoder return all tokens after these blocks within the context."""
    kept = model.out_type, model.out_indices
    model.out_type, model.out_indices = 'raw', tuple(k - 1 for k in layers)
    try:
        yield
    finally:
        model.out_type, model.out_indices = kept
