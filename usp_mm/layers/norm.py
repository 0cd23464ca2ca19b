"""The norms of a block, by name."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """LayerNorm of the whole model family (Table 1: eps 1e-6)."""

    def __init__(self, dim: int, elementwise_affine: bool = True, **kwargs: Any) -> None:
        super().__init__(dim, 1e-6, elementwise_affine, **kwargs)


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x²) + 1e-6) · weight (arXiv 1910.07467), in the input's type, computed in float32."""

    def __init__(self, dim: int, elementwise_affine: bool = True, **kwargs: Any) -> None:
        super().__init__(dim, 1e-6, elementwise_affine, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        # under autocast queries and keys are bfloat16; with weights of another type torch has no fused kernel
        return F.rms_norm(x, self.normalized_shape, None if self.weight is None else self.weight.to(x.dtype), self.eps)


NORMS: dict[str, type[LayerNorm | RMSNorm]] = {'layer': LayerNorm, 'rms': RMSNorm}
