"""Fixed 2-D sine-cosine position tables, as in MAE, DiT and SiT.

The first half of a token's channels encodes its column, the second half its row (mmpretrain's
table is the transpose of this one, so checkpoints of the official code need this one).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_table(dim: int, grid: tuple[int, int], cls_token: bool = False) -> Tensor:
    """float64[(1 +) rows·cols, dim]: [sin, cos] of the column, then of the row; zeros for the class token.

    Wavelengths run from 2π to 10000·2π (Vaswani et al., "Attention is all you need", section 3.5).
    """
    if dim % 4:
        raise ValueError(f'a 2-D sine-cosine table needs a width that is a multiple of 4, got {dim}')
    rows, cols = grid
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, col = torch.meshgrid(torch.arange(rows, dtype=torch.float64), torch.arange(cols, dtype=torch.float64), indexing='ij')
    angles = [position.reshape(-1, 1) * omega for position in (col, row)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), table]) if cls_token else table


def resize_pos_embed(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], mode: str = 'bicubic', num_prefix: int = 1
) -> Tensor:
    """Resize a position table [1, num_prefix + rows·cols, dim] from grid `old` to grid `new`.

    Plain `F.interpolate` without antialiasing, the kernel the official tables were resized with;
    the first `num_prefix` entries (class token) are kept.
    """
    assert table.shape[1] == num_prefix + old[0] * old[1], (tuple(table.shape), old, num_prefix)
    if old == new:
        return table
    prefix, grid = table[:, :num_prefix], table[:, num_prefix:]
    grid = grid.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=new, mode=mode, align_corners=False)
    return torch.cat([prefix, grid.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], dim=1)
