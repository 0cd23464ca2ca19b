"""Embeddings of a generator's inputs: latent patches, time and class (DiT, arXiv 2212.09748, section 3.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usp_mm.functional.patchify import patchify

from .modulation import conditioning

#: Longest wavelength of the time embedding, in units of 2π.
MAX_PERIOD = 10000.0


def sinusoidal_embedding(t_N: Tensor, dim: int) -> Tensor:
    """float32[N, dim]: cosines, then sines, of t at wavelengths from 2π to `MAX_PERIOD`·2π; `dim` is even."""
    half = dim // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=t_N.device) / half)
    angles = t_N[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class PatchEmbedder(nn.Module):
    """PatchConv: [N, C, h, w] -> tokens [N, L, dim].

    The convolution is computed as a matrix product, which is the same sum because its stride equals its kernel. On a CPU, the
    last bits of a convolution depend on the batch, and those of the product do not. There the product takes no longer in
    inference, and about two thirds of the time with gradients (not measured on a GPU).
    """

    def __init__(self, channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.proj.weight.permute(0, 2, 3, 1).flatten(1)  # row, column, channel, as `patchify` orders a patch
        return F.linear(patchify(x, self.proj.kernel_size[0]), weight, self.proj.bias)


class TimestepEmbedder(nn.Module):
    """A two-layer SiLU network on 256 sinusoids of the time: [N] -> [N, dim]."""

    num_frequencies = 256

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def init_normal(self) -> None:
        """Draw the weights from normal(0, 0.02); biases are not changed."""
        for linear in (self.mlp[0], self.mlp[2]):
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=0.02)

    def forward(self, t: Tensor) -> Tensor:
        return conditioning(self.mlp, sinusoidal_embedding(t, self.num_frequencies))


class LabelEmbedder(nn.Module):
    """A learned vector per class and, if classes are dropped in training, one for "no class": int64[N] -> [N, dim].

    Args:
        num_classes: Number of classes; labels run from 0, and the label `num_classes` means "no class".
        null: Whether to add the vector for "no class" (classifier-free guidance, arXiv 2207.12598).
    """

    def __init__(self, num_classes: int, dim: int, null: bool) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + null, dim)

    def init_normal(self) -> None:
        """Draw the vectors from normal(0, 0.02)."""
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)
