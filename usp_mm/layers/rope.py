"""Rotary positions of a grid of tokens (RoFormer, arXiv 2104.09864, section 3.2.2; in 2-D as in EVA-02, arXiv 2303.11331)."""

import torch
from timm.layers import build_rotary_pos_embed
from torch import Tensor, nn


class RotaryPositions(nn.Module):
    """Sines and cosines by which attention rotates pairs of neighbouring channels of queries and keys.

    The first half of a head's channels is rotated by the token's row, the second by its column, pair k of H by an angle of
    10000^(-k/H) per token, so that the rotation's effect on a score depends only on the distance of the two tokens. The state
    dict holds none of this.

    Args:
        head_dim: Number of channels of a head.
        grid: Tokens per column and per row of the training images; positions of other grids are scaled to this one.

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
        """Compute the sines and cosines, concatenated, as `TransformerBlock` takes them.

        Args:
            grid: Tokens per column and per row; those of the training images by default.
            keep: int64[N, K], positions of each sample's visible tokens; all tokens by default.

        Returns:
            float[L, 2·head_dim], or float[N, 1, K, 2·head_dim] with `keep`.
        """
        table = self.table if grid in (None, self.grid) else self._table(grid, self.table.device)
        return table if keep is None else table[keep].unsqueeze(1)
