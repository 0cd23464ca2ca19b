"""The network of SiT (arXiv 2401.08740), also with LightningDiT's block (arXiv 2501.01423), as a diffusers model.

This file belongs to a pipeline folder and needs torch and diffusers alone. Names of weights are those of the official SiT.

Shape legend: N batch, C×h×w latent, L tokens, D width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

EPS = 1e-6


def make_norm(kind: str, dim: int, affine: bool) -> nn.Module:
    """A LayerNorm ('layer') or an RMSNorm ('rms')."""
    return (nn.RMSNorm if kind == 'rms' else nn.LayerNorm)(dim, eps=EPS, elementwise_affine=affine)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift for tokens [N, L, D] and vectors [N, D]."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def rotary_angles(side: int, head_dim: int) -> Tensor:
    """float[L, head_dim]: the angle of each channel, by row in the first half of the channels and by column in the second."""
    bands = 10000.0 ** (-torch.arange(head_dim // 4, dtype=torch.float32) / (head_dim // 4))
    angles = torch.arange(side, dtype=torch.float32)[:, None] * bands
    rows, columns = angles.repeat_interleave(side, 0), angles.repeat(side, 1)
    return torch.cat([rows, columns], dim=1).repeat_interleave(2, dim=1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs of neighbouring channels of [N, heads, L, head_dim]."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).reshape(x.shape)
    return x * angles.cos().to(x.dtype) + turned * angles.sin().to(x.dtype)


class Attention(nn.Module):
    """Self-attention, with rotary positions if angles are given."""

    def __init__(self, dim: int, num_heads: int, norm: str, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm, self.k_norm = (make_norm(norm, dim // num_heads, True) if qk_norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, angles: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """A two-layer MLP with GELU."""

    def __init__(self, dim: int, approximate: str) -> None:
        super().__init__()
        self.fc1, self.fc2, self.approximate = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim), approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class SwiGLU(nn.Module):
    """The gated MLP of LightningDiT, two thirds as wide."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 4 * dim * 2 // 3
        self.w12, self.w3 = nn.Linear(dim, 2 * hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Attention and MLP under adaLN-Zero."""

    def __init__(self, dim: int, num_heads: int, norm: str, norm_affine: bool, mlp: str, qk_norm: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (make_norm(norm, dim, norm_affine) for _ in range(2))
        self.attn = Attention(dim, num_heads, norm, qk_norm)
        self.mlp = SwiGLU(dim) if mlp == 'swiglu' else Mlp(dim, 'tanh' if mlp == 'gelu_tanh' else 'none')
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor, angles: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1), angles)
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """A modulated norm and a linear map from tokens to patches."""

    def __init__(self, dim: int, patch_dim: int, norm: str) -> None:
        super().__init__()
        self.norm_final = make_norm(norm, dim, norm == 'rms')
        self.linear = nn.Linear(dim, patch_dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class TimestepEmbedder(nn.Module):
    """A two-layer network on 256 sinusoids of the time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None].float() * torch.exp(-math.log(10000.0) * torch.arange(128, device=t.device) / 128)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(next(self.parameters()).dtype))


class SiTTransformer2DModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """SiT: (noisy latents [N, C, h, w], times [N] in [0, 1], labels int64[N]) -> prediction [N, C, h, w].

    Args:
        sample_size: Side of the latents.
        patch_size: Latent pixels per token side.
        in_channels: Latent channels C.
        out_channels: Channels of the last layer; those beyond C are dropped.
        hidden_size, num_layers, num_attention_heads: Width, depth and heads.
        num_embeddings: Rows of the label embedding; the last is "no class" if there is one.
        norm: 'layer' or 'rms'.
        norm_affine: Whether norm1 and norm2 have a scale (and shift) of their own.
        mlp: 'gelu', 'gelu_tanh' or 'swiglu'.
        rope, qk_norm: Whether attention rotates, and normalises, queries and keys.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        out_channels: int = 8,
        hidden_size: int = 1152,
        num_layers: int = 28,
        num_attention_heads: int = 16,
        num_embeddings: int = 1001,
        norm: str = 'layer',
        norm_affine: bool = False,
        mlp: str = 'gelu_tanh',
        rope: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.side, dim = sample_size // patch_size, hidden_size
        self.x_embedder = nn.ModuleDict({'proj': nn.Conv2d(in_channels, dim, patch_size, patch_size)})
        self.t_embedder = TimestepEmbedder(dim)
        self.y_embedder = nn.ModuleDict({'embedding_table': nn.Embedding(num_embeddings, dim)})
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2, dim), requires_grad=False)
        kinds = (num_attention_heads, norm, norm_affine, mlp, qk_norm)
        self.blocks = nn.ModuleList(Block(dim, *kinds) for _ in range(num_layers))
        self.final_layer = FinalLayer(dim, patch_size**2 * out_channels, norm)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        config: Any = self.config
        tokens = self.x_embedder['proj'](x).flatten(2).transpose(1, 2) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder['embedding_table'](y)
        head_dim = config.hidden_size // config.num_attention_heads
        angles = rotary_angles(self.side, head_dim).to(x.device) if config.rope else None
        for block in self.blocks:
            tokens = block(tokens, c, angles)
        patches = self.final_layer(tokens, c).unflatten(1, (self.side, self.side))
        patches = patches.unflatten(3, (config.patch_size, config.patch_size, -1))
        return torch.einsum('nhwpqc->nchpwq', patches).flatten(4, 5).flatten(2, 3)[:, : config.in_channels]
