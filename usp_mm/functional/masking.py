"""Random masking of patch tokens (MAE, arXiv 2111.06377, section 3; USP keeps it at 75 %).

The noise that chooses the tokens is drawn by the model, from (seed, epoch, sample): `usp_mm.models.random_keys`.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Mask(NamedTuple):
    """A random mask over L tokens, of which K stay visible.

    keep: int64[N, K], positions of the visible tokens, in the shuffled order the encoder sees.
    restore: int64[N, L], the position of each token in the shuffled order.
    mask: float32[N, L], 1 where a token is hidden.
    """

    keep: Tensor
    restore: Tensor
    mask: Tensor


def mask_from_noise(noise_NL: Tensor, mask_ratio: float) -> Mask:
    """Make the mask that keeps the int(L·(1 - mask_ratio)) tokens with the smallest noise."""
    length = noise_NL.shape[1]
    num_keep = int(length * (1 - mask_ratio))
    shuffle = noise_NL.argsort(dim=1, stable=True)
    restore = shuffle.argsort(dim=1)
    mask = (restore >= num_keep).to(torch.float32)
    return Mask(shuffle[:, :num_keep], restore, mask)


def gather_tokens(x_NLD: Tensor, ids_NK: Tensor) -> Tensor:
    """Pick tokens by position: [N, L, D], int64[N, K] -> [N, K, D]."""
    return x_NLD.gather(1, ids_NK.unsqueeze(-1).expand(-1, -1, x_NLD.shape[-1]))


def scatter_tokens(x_NLD: Tensor, ids_NK: Tensor, y_NKD: Tensor) -> Tensor:
    """Replace tokens by position, the inverse of `gather_tokens`: a copy of `x` [N, L, D] whose tokens `ids` are those of `y`.

    All must have the same dtype, and the positions of a sample must differ from one another.
    """
    return x_NLD.scatter(1, ids_NK.unsqueeze(-1).expand(-1, -1, x_NLD.shape[-1]), y_NKD)
