"""Rotary positions of a grid of tokens (RoFormer, arXiv 2104.09864, section 3.2.2; in 2-D as in EVA-02, arXiv 2303.11331)."""

import torch
from timm.layers import build_rotary_pos_embed
from torch import Tensor, nn


class RotaryPositions(nn.Module):
    """Sines and cosines by which attention rotates pairs of neighbouring channels of queries and keys.

    The first half of a head's channels turns with the token's row, the second with its column, pair k of H by
    10000^(-k/H) a token: scores of two tokens depend on their distance alone. Nothing of it is in a state dict.

    Args:
        head_dim: channels of a head.
        grid: tokens per column and row of the training images; other grids are scaled onto it.

    Raises:
        ValueError: `head_dim` is no multiple of 4.
    """

    table: Tensor

    def __init__(self, head_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if head_dim % 4:
            raise ValueError(f'rotary positions need heads whose width is a multiple of 4, got {head_dim}')
        self.head_dim, self.grid = head_dim, grid
        self.register_buffer('table', self._table(grid, None), persistent=False)

    def _table(self, grid: tuple[int, int], device: torch.device | None) -> Tensor:
        sin_cos = build_rotary_pos_embed(
            list(grid), dim=self.head_dim, in_pixels=False, ref_feat_shape=list(self.grid), device=device
        )
        return torch.cat(sin_cos, dim=-1)

    def forward(self, grid: tuple[int, int] | None = None, keep: Tensor | None = None) -> Tensor:
        """Sines, then cosines, as `TransformerBlock` takes them.

        Args:
            grid: tokens per column and row; the training images' by default.
            keep: int64[N, K], numbers of each sample's visible tokens; all of them by default.

        Returns:
            float[L, 2·head_dim], or with `keep` float[N, 1, K, 2·head_dim].
        """
        table = self.table if grid in (None, self.grid) else self._table(grid, self.table.device)
        return table if keep is None else table[keep].unsqueeze(1)
