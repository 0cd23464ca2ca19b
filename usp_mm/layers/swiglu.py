"""The gated MLP of LightningDiT."""

import torch.nn.functional as F
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """W3(SiLU(W1·x) ⊙ W2·x) (arXiv 2002.05202, section 2) on [..., dim]; W1 and W2 are the halves of `w12`.

    timm's modules of this kind are not used, because their parameter names differ from those of LightningDiT and DINOv2.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden_dim)
        self.w3 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)
