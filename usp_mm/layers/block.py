"""One pre-norm transformer block for every stage, from timm's attention and MLP.

Parameter names (norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2) are those of the official USP, MAE, timm, DiT and SiT
checkpoints; those of the options (attn.q_norm, attn.k_norm, mlp.w12, mlp.w3) are LightningDiT's.
"""

from functools import partial

from timm.layers import AttentionRope, Mlp
from torch import Tensor, nn

from .drop_path import DropPath
from .options import PLAIN, BlockOptions
from .swiglu import SwiGLU


class BlockParts(nn.Module):
    """Norms, attention and MLP of a block; subclasses combine them in their `forward`.

    Args:
        drop_path: Probability of dropping a sample's residual branch in training; None if the model has no stochastic depth.
        act_layer: Activation of a 'gelu' MLP; encoders use the exact GELU.
        options: Kinds of norm, MLP and attention.
        num_prefix_tokens: Number of leading tokens without a rotary position; 1 for the class token.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float | None = None,
        act_layer: type[nn.Module] | partial = nn.GELU,
        options: BlockOptions = PLAIN,
        num_prefix_tokens: int = 1,
    ) -> None:
        super().__init__()
        norm, hidden_dim = options.norm_layer, int(dim * mlp_ratio)
        self.norm1 = norm(dim)
        self.attn = AttentionRope(dim, num_heads, num_prefix_tokens=num_prefix_tokens, qk_norm=options.qk_norm, norm_layer=norm)
        self.norm2 = norm(dim)
        # two thirds of the width: three matrices have the parameters of two
        swiglu = options.mlp == 'swiglu'
        if swiglu:
            self.mlp: nn.Module = SwiGLU(dim, hidden_dim * 2 // 3)
        else:
            self.mlp = Mlp(dim, hidden_dim, act_layer=act_layer)  # type: ignore[arg-type]  # timm only calls it
        self.drop_path = nn.Identity() if drop_path is None else DropPath(drop_path)


class TransformerBlock(BlockParts):
    """x + Attention(norm(x)), then x + MLP(norm(x)), on tokens [N, L, dim]; arguments as in `BlockParts`."""

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """Tokens [N, L, dim] and, with `options.rope`, what `RotaryPositions` returns for those with a position -> tokens."""
        x = x + self.drop_path(self.attn(self.norm1(x), rope))
        return x + self.drop_path(self.mlp(self.norm2(x)))
