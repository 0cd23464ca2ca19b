"""One pre-norm transformer block for every stage, from timm's attention and MLP.

Parameter names (norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2) are those of the official
USP, MAE, timm, DiT and SiT checkpoints.
"""

from functools import partial

from timm.layers import Attention, DropPath, Mlp
from torch import Tensor, nn

#: LayerNorm of the whole model family (Table 1: eps 1e-6).
LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class TransformerBlock(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)), on tokens [N, L, dim].

    Args:
        drop_path: probability of dropping a residual branch of a sample in training.
        act_layer: the MLP's activation; encoders use the exact GELU.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        act_layer: type[nn.Module] | partial = nn.GELU,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias=True)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
