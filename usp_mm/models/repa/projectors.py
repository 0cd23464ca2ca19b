"""Projectors from a denoiser's tokens to a teacher's width.

Shape legend: N samples, L tokens, D width.
"""

import torch
from torch import Tensor, nn


def mlp(in_dims: int, out_dims: int, grid: tuple[int, int], hidden_dims: int) -> nn.Module:
    """REPA's projector (arXiv 2410.06940, appendix): three linear layers with SiLU, applied to each token."""
    return nn.Sequential(
        nn.Linear(in_dims, hidden_dims),
        nn.SiLU(),
        nn.Linear(hidden_dims, hidden_dims),
        nn.SiLU(),
        nn.Linear(hidden_dims, out_dims),
    )


class ConvProjector(nn.Conv2d):
    """iREPA's projector (arXiv 2512.10794): a 3×3 convolution over the token grid, [N, L, D] -> [N, L, out_dims]."""

    def __init__(self, in_dims: int, out_dims: int, grid: tuple[int, int], hidden_dims: int) -> None:
        super().__init__(in_dims, out_dims, kernel_size=3, padding=1)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2).unflatten(2, self.grid)).flatten(2).transpose(1, 2)


PROJECTORS = {'mlp': mlp, 'conv': ConvProjector}


def spatial_norm(tokens: Tensor, gamma: float) -> Tensor:
    """iREPA's spatial normalisation (arXiv 2512.10794) of a teacher's tokens [N, L, D]: (x - γ·mean) / (std + 1e-6) over L.

    It reduces the component that all positions of an image share; γ = 1 removes it completely.
    """
    std, mean = torch.std_mean(tokens, dim=1, keepdim=True)
    return (tokens - gamma * mean) / (std + 1e-6)
