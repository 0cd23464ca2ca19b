"""The loop that others are compared with: DiT trained and called as the official script does it.

The network is written in plain torch, in eager float32 that may round to TF32; one group of AdamW, an averaged copy that a
Python loop over the parameters updates, tables that move to the device in each step, and a loss that is read in each.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .scale import Scale


class OfficialBlock(nn.Module):
    """Attention and MLP, each with the shift, scale and gate that the condition gives."""

    def __init__(self, dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = (nn.LayerNorm(dims, 1e-6, elementwise_affine=False) for _ in range(2))
        self.qkv, self.proj = nn.Linear(dims, 3 * dims), nn.Linear(dims, dims)
        self.mlp = nn.Sequential(nn.Linear(dims, 4 * dims), nn.GELU('tanh'), nn.Linear(4 * dims, dims))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dims, 6 * dims))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, dim=-1)
        qkv = self.qkv(self.norm1(x) * (1 + scale1) + shift1).unflatten(-1, (3, self.num_heads, -1))
        attended = scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + gate1 * self.proj(attended.transpose(1, 2).flatten(2))
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class OfficialDiT(nn.Module):
    """DiT with patch 2 on 4 latent channels, variance learnt, and a label dropped in a tenth of the samples."""

    def __init__(self, dims: int, depth: int, num_heads: int, latent_size: int, classes: int) -> None:
        super().__init__()
        self.grid, self.classes = latent_size // 2, classes
        self.patches = nn.Conv2d(4, dims, 2, 2)
        self.positions = nn.Parameter(torch.randn(1, self.grid**2, dims), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(256, dims), nn.SiLU(), nn.Linear(dims, dims))
        self.label = nn.Embedding(classes + 1, dims)
        self.blocks = nn.ModuleList(OfficialBlock(dims, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dims, 1e-6, elementwise_affine=False)
        self.modulation, self.head = nn.Sequential(nn.SiLU(), nn.Linear(dims, 2 * dims)), nn.Linear(dims, 32)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if self.training:
            y = torch.where(torch.rand(len(y), device=y.device) < 0.1, self.classes, y)
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128).to(t.device)
        angles = t[:, None].float() * frequencies
        c = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1)) + self.label(y)
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=-1)
        out = self.head(self.norm(tokens) * (1 + scale) + shift)
        return out.view(-1, self.grid, self.grid, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, *x.shape[2:])


def official_network(scale: Scale, device: str | None = None) -> OfficialDiT:
    """XL/2."""
    dims, depth, num_heads = (32, 2, 2) if scale.toy else (1152, 28, 16)
    with torch.device(device or scale.device):
        return OfficialDiT(dims, depth, num_heads, scale.latent_size, scale.classes)


def official_flops(scale: Scale) -> int:
    """Operations of an image's forward pass."""
    from usp_mm.engine.records.flops import count_forward

    inputs = (torch.empty(1, 4, scale.latent_size, scale.latent_size), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    return count_forward(official_network(scale, 'meta'), *(x.to('meta') for x in inputs))


def official_step(network: nn.Module, batch: int, scale: Scale, vae: Any = None) -> Callable[[], None]:
    """A training step, on latents or, with a diffusers autoencoder, on images."""
    from usp_mm.functional import ddpm

    device, alpha_bar = scale.device, ddpm.linear_alpha_bar()
    tables, ema = ddpm.schedule(alpha_bar), copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0)
    latents = torch.randn(batch, 4, scale.latent_size, scale.latent_size, device=device)
    images = torch.randn(batch, 3, scale.img_size, scale.img_size, device=device)
    label = torch.arange(batch, device=device) % scale.classes

    def losses() -> Tensor:
        x = latents
        if vae is not None:
            with torch.no_grad():
                x = vae.encode(images).latent_dist.sample().mul_(0.18215)
        t, noise = torch.randint(0, 1000, (batch,), device=device), torch.randn_like(x)
        x_t = ddpm.diffuse(x, alpha_bar.to(device)[t], noise)
        eps, fraction = network(x_t, t, label).chunk(2, dim=1)
        bits = ddpm.vlb_bits(tables.to(torch.device(device)).per_sample(t, x), t, x, x_t, eps, fraction)
        return ((eps - noise) ** 2).mean() + bits.mean()

    def step() -> None:
        loss = losses()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            averaged = dict(ema.named_parameters())
            for name, parameter in network.named_parameters():
                averaged[name].mul_(0.9999).add_(parameter.data, alpha=1e-4)
        loss.item()

    return step
