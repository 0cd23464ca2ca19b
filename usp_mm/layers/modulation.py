"""The generators' block: the shared transformer block under adaLN-Zero (DiT, arXiv 2212.09748, section 3.2).

In USP, the block's norms also have a trainable scale and shift of their own (section 2.3), applied before the modulation.

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
    """x·(1 + scale) + shift, with the same scale and shift for all tokens of a sample."""
    return x_NLD * (1 + scale_ND.unsqueeze(1)) + shift_ND.unsqueeze(1)


def conditioning(network: Callable[[Tensor], Tensor], c_ND: Tensor) -> Tensor:
    """Compute `network(c)`; on a CPU in inference, a sample's row does not depend on the rest of the batch, bit for bit.

    To that end the batch is padded to a multiple of `CPU_ROW_TILE` rows. Other devices give no such guarantee and pad nothing.
    """
    if torch.is_grad_enabled() or c_ND.device.type != 'cpu':
        return network(c_ND)
    num = c_ND.shape[0]
    return network(nn.functional.pad(c_ND, (0, 0, 0, -num % CPU_ROW_TILE)))[:num]


class ModulatedBlock(BlockParts):
    """x + gate·Attention(modulate(norm(x))), then x + gate·MLP(modulate(norm(x))).

    The six vectors (shift, scale and gate of the attention, then of the MLP) are linear in SiLU(c). With its zero initial
    weights, a block is the identity for `gate_bias` 0 (adaLN-Zero), and for `gate_bias` 1 the plain block in which its weights
    were pretrained (USP, appendix A).

    Args:
        norm_affine: Whether the norms have a scale and shift of their own, as in USP; DiT's have none.
        gate_bias: Initial value of the bias of both gates.
        options: Kinds of norm, MLP and attention.
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
        """Set the weights to zero, and the biases to zero except those of the gates."""
        linear = self.adaLN_modulation[1]
        assert isinstance(linear, nn.Linear)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        with torch.no_grad():
            linear.bias.view(6, -1)[[2, 5]] = self.gate_bias

    def forward(self, x: Tensor, c: Tensor, rope: Tensor | None = None, vectors: Tensor | None = None) -> Tensor:
        """Tokens [N, L, D] -> tokens.

        Args:
            c: Conditioning, [N, D].
            rope: Output of `RotaryPositions`, needed with `options.rope`.
            vectors: The six vectors, [N, 6·D], if they were computed before; `c` is not read then.
        """
        vectors = conditioning(self.adaLN_modulation, c) if vectors is None else vectors
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors.chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1), rope)
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """A modulated norm and a linear map from tokens to patches; the output of a new layer is zero.

    The norm is a LayerNorm without parameters in DiT and SiT, an RMSNorm with a scale in LightningDiT.
    """

    def __init__(self, dim: int, patch_dim: int, options: BlockOptions = PLAIN) -> None:
        super().__init__()
        self.norm_final = options.norm_layer(dim, elementwise_affine=options.norm == 'rms')
        self.linear = nn.Linear(dim, patch_dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def init_zero(self) -> None:
        """Set the modulation and the output layer to zero."""
        for linear in (self.adaLN_modulation[1], self.linear):
            assert isinstance(linear, nn.Linear)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, c: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Tokens [N, L, D], conditioning [N, D] -> patches [N, L, patch_dim]; `vectors` [N, 2·D] as in `ModulatedBlock`."""
        vectors = conditioning(self.adaLN_modulation, c) if vectors is None else vectors
        shift, scale = vectors.chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))
