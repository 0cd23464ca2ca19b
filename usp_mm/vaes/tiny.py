"""A small VAE of Stable Diffusion's type (stride 8, 4 latent channels) that trains in a minute on two CPU cores.

It is meant for digits and for tests: everything that works with `sd-f8d4` works with its latents. For colour images see
`laptop`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usp_mm.config.options import TinyVAETraining

from .training import VAEReport, save_vae, train_vae

__all__ = ['TinyVAETraining', 'make_tiny_vae', 'save_vae', 'train_tiny_vae']

WIDTHS = (8, 16, 32, 64)


@dataclass(frozen=True)
class _Tiny:
    kl_weight: float
    name = 'tiny'
    stride = 2 ** (len(WIDTHS) - 1)

    def make(self, batches: Iterator[Tensor], seed: int) -> Any:
        return make_tiny_vae(seed)

    def loss(self, vae: Any, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample(generator)).sample
        error = (decoded - images).square().mean()
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return error + self.kl_weight * divergence, dict(mse=error, kl=divergence)

    def latents(self, vae: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        posterior = vae.encode(images).latent_dist
        latents: Tensor = posterior.mode() if generator is None else posterior.sample(generator)
        return latents


def make_tiny_vae(seed: int = 0, scaling_factor: float = 1.0, widths: Sequence[int] = WIDTHS) -> Any:
    """Build a randomly initialised diffusers `AutoencoderKL` with 4 latent channels and stride 2^(len(widths) - 1).

    Args:
        seed: Seed of the weights; torch's global generator is not changed.
        scaling_factor: `scaling_factor` of the model's config.
        widths: Number of channels at each resolution, multiples of 4.
    """
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            down_block_types=('DownEncoderBlock2D',) * len(widths),
            up_block_types=('UpDecoderBlock2D',) * len(widths),
            block_out_channels=tuple(widths),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
            scaling_factor=scaling_factor,
        )


def train_tiny_vae(
    data: str | Path | Sequence[str | Path], out: str | Path, config: TinyVAETraining = TinyVAETraining()
) -> VAEReport:
    """Train the VAE of preset 'tiny'; see `train_vae`."""
    return train_vae(_Tiny(config.kl_weight), data, out, config)
