"""The generators' block: the shared transformer block under adaLN-Zero (DiT, arXiv 2212.09748, section 3.2).

USP gives the block's norms trainable scale and shift again (section 2.3), under the modulation.

Shape legend: N batch, L tokens, D width.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .block import BlockParts
from .options import PLAIN, BlockOptions

#: On a CPU, matrix products of this many rows or more give the same bits for a row whatever rows stand beside it (measured).
CPU_ROW_TILE = 16


def modulate(x_NLD: Tensor, shift_ND: Tensor, scale_ND: Tensor) -> Tensor:
    """x·(1 + scale) + shift, the same for all tokens of a sample."""
    return x_NLD * (1 + scale_ND.unsqueeze(1)) + shift_ND.unsqueeze(1)


def conditioning(network: Callable[[Tensor], Tensor], c_ND: Tensor) -> Tensor:
    """`network(c)`; on a CPU, outside training, a sample's row doesn't depend on the rows beside it, bit for bit.

    For that, rows are padded to a multiple of `CPU_ROW_TILE` there. Other devices promise no such thing, and nothing is padded.
    """
    if torch.is_grad_enabled() or c_ND.device.type != 'cpu':
        return network(c_ND)
    num = c_ND.shape[0]
    return network(nn.functional.pad(c_ND, (0, 0, 0, -num % CPU_ROW_TILE)))[:num]


class ModulatedBlock(BlockParts):
    """x + gate·Attention(modulate(norm(x))), then x + gate·MLP(modulate(norm(x))).

    The six vectors (shift, scale, gate of attention, then of the MLP) are linear in SiLU(c); zero weights and
    `gate_bias` 0 make a new block the identity (adaLN-Zero), `gate_bias` 1 makes it the plain block that its weights
    were pretrained in (USP, appendix A).

    Args:
        norm_affine: whether the norms have a scale and shift of their own (USP) or not (DiT).
        gate_bias: initial value of both gates' bias.
        options: kinds of norm, MLP and attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        act_layer: type[nn.Module] | partial = nn.GELU,
        norm_affine: bool = True,
        gate_bias: float = 0.0,
        options: BlockOptions = PLAIN,
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio, act_layer=act_layer, options=options, num_prefix_tokens=0)
        if not norm_affine:
            self.norm1, self.norm2 = (options.norm_layer(dim, elementwise_affine=False) for _ in range(2))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.gate_bias = gate_bias

    def init_modulation(self) -> None:
        """Zero weights; zero biases but the gates'."""
        linear = self.adaLN_modulation[1]
        assert isinstance(linear, nn.Linear)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        with torch.no_grad():
            linear.bias.view(6, -1)[[2, 5]] = self.gate_bias

    def forward(self, x: Tensor, c: Tensor, rope: Tensor | None = None, vectors: Tensor | None = None) -> Tensor:
        """Tokens [N, L, D] -> tokens.

        Args:
            c: conditioning, [N, D].
            rope: with `options.rope`, what `RotaryPositions` returns.
            vectors: [N, 6·D], the six vectors where they are known already; `c` is not read then.
        """
        vectors = conditioning(self.adaLN_modulation, c) if vectors is None else vectors
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors.chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1), rope)
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Modulated norm, then a linear map to the patches; all zero when new.

    The norm is a LayerNorm without parameters in DiT and SiT, an RMSNorm with a scale in LightningDiT.
    """

    def __init__(self, dim: int, patch_dim: int, options: BlockOptions = PLAIN) -> None:
        super().__init__()
        self.norm_final = options.norm_layer(dim, elementwise_affine=options.norm == 'rms')
        self.linear = nn.Linear(dim, patch_dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def init_zero(self) -> None:
        """Zero modulation and zero output."""
        for linear in (self.adaLN_modulation[1], self.linear):
            assert isinstance(linear, nn.Linear)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, c: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Tokens [N, L, D], conditioning [N, D] -> patches [N, L, patch_dim]; `vectors` [N, 2·D] as in `ModulatedBlock`."""
        vectors = conditioning(self.adaLN_modulation, c) if vectors is None else vectors
        shift, scale = vectors.chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))
