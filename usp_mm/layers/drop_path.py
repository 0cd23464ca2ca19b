"""Stochastic depth whose rate is an input of a compiled graph and not a constant in it."""

import torch
from timm.layers import DropPath as TimmDropPath
from torch import Tensor


class DropPath(TimmDropPath):
    """timm's DropPath (arXiv 1603.09382), made so that blocks with different rates share one compiled graph.

    timm's rate is a Python number, which becomes a constant of the graph. Compiled code draws other random numbers than eager.
    """

    keep_prob: Tensor

    def __init__(self, drop_prob: float) -> None:
        super().__init__(drop_prob)
        self.register_buffer('keep_prob', torch.tensor(1 - drop_prob), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        if not self.training:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < self.keep_prob
        return x * (keep / self.keep_prob).to(x.dtype)
