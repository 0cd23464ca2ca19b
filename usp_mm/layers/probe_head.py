"""The head of a linear probe (USP, arXiv 2503.06132, Table 12)."""

import torch
from torch import nn


class ProbeHead(nn.Sequential):
    """BatchNorm without scale and shift, and a linear layer: [N, D] -> [N, classes].

    Args:
        dims: Width of the features, D.
        num_classes: Number of classes.
        seed: Seed of the weights, drawn from a truncated normal of standard deviation 0.01; the bias starts at 0.
    """

    def __init__(self, dims: int, num_classes: int, seed: int = 0) -> None:
        linear = nn.Linear(dims, num_classes)
        nn.init.trunc_normal_(linear.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(linear.bias)
        super().__init__(nn.BatchNorm1d(dims, eps=1e-6, affine=False), linear)
