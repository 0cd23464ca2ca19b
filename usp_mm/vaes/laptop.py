"""A VAE for colour images (stride 4, 4 latent channels) that trains in minutes on two CPU cores.

It is diffusers' `AutoencoderDC` (DC-AE, arXiv 2410.10733), whose shortcuts carry pixels to the coarse grid and back, with no
convolution at full resolution. It is initialised as the principal component analysis of the images' 4 × 4 patches, which is
the best linear autoencoder; training adds the nonlinear part.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from usp_mm.config.options import LaptopVAETraining

from .training import VAEReport, train_vae

CHANNELS, STRIDE = 4, 4
#: Channels at half and at a quarter of the resolution; with a factor of four, the shortcuts between them lose nothing.
WIDTHS = (16, 64)
#: How many numbers a colour patch of 2 × 2 and of 4 × 4 pixels has.
_HALF, _QUARTER = 12, 48
#: Number of training images from whose patches the principal components are computed.
_PCA_IMAGES = 1000
#: A constant in the unused channels, so large that the decoder's last norm divides by nearly a constant.
_ANCHOR = 8.0
#: Added before the ReLU that follows this norm, so that [-1, 1] passes unchanged.
_LIFT = 1.5


class _Laptop:
    name, stride = 'laptop', STRIDE

    def make(self, batches: Iterator[Tensor], seed: int) -> Any:
        vae, images = make_laptop_vae(seed), next(batches)
        while len(images) < _PCA_IMAGES:
            images = torch.cat([images, next(batches)])
        start_from_components(vae, images)
        return vae.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def loss(self, vae: Any, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        error = (vae.decode(vae.encode(images).latent).sample - images).square().mean()
        return error, dict(mse=error)

    def latents(self, vae: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        latents: Tensor = vae.encode(images).latent
        return latents


def make_laptop_vae(seed: int = 0, scaling_factor: float = 1.0) -> Any:
    """Build a randomly initialised diffusers `AutoencoderDC` with 4 latent channels and stride 4.

    Args:
        seed: Seed of the weights; torch's global generator is not changed.
        scaling_factor: `scaling_factor` of the model's config.
    """
    from diffusers import AutoencoderDC

    widths, no_attention = (WIDTHS[0], *WIDTHS), ((), (), ())  # no layer at full resolution: its width has no effect
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderDC(
            latent_channels=CHANNELS,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            encoder_layers_per_block=(0, 1, 2),
            decoder_layers_per_block=(0, 1, 3),
            encoder_qkv_multiscales=no_attention,
            decoder_qkv_multiscales=no_attention,
            downsample_block_type='conv',
            scaling_factor=scaling_factor,
        )


@torch.no_grad()
def start_from_components(vae: Any, images: Tensor) -> None:
    """Initialise the VAE of `make_laptop_vae` with the principal components of the images' patches.

    Its latents are then the first components, each of zero mean and unit variance. Residual blocks add nothing yet, because
    their last norms are set to zero.

    Args:
        vae: The VAE, changed in place.
        images: float32[N, 3, H, W] in [-1, 1].
    """
    mean, components, deviations = _principal_components(images)
    for block in vae.modules():
        if type(block).__name__ == 'ResBlock':
            block.norm.weight.zero_()
    for block in (vae.encoder.down_blocks[1][-1], vae.decoder.up_blocks[1][0]):  # only their shortcuts remain
        _zero(block.conv)
    _encode_with(vae.encoder, mean, components / deviations)
    _decode_with(vae.decoder, mean, components * deviations)


def _principal_components(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [48], first components [48, 4] and their standard deviations [4]; a patch is ordered as by two pixel unshuffles."""
    patches = F.pixel_unshuffle(F.pixel_unshuffle(images, 2), 2).permute(0, 2, 3, 1).reshape(-1, _QUARTER).double()
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    variances, components = variances.flip(0)[:CHANNELS], components.flip(1)[:, :CHANNELS]
    deviations = variances.clamp(min=1e-4).sqrt()  # images of one colour have none
    return patches.mean(0).float(), components.float(), deviations.float()


def _encode_with(encoder: Any, mean: Tensor, analysis: Tensor) -> None:
    """Set the encoder to two pixel unshuffles (the first convolution and a shortcut) and the projection to the components."""
    first, last, width = encoder.conv_in.conv, encoder.conv_out, WIDTHS[1]
    first.weight[:_HALF] = 0
    first.bias[:_HALF] = 0
    for number in range(_HALF):  # one for each channel, row and column
        first.weight[number, number // 4, 1 + number // 2 % 2, 1 + number % 2] = 1
    _zero(last)
    group = width // CHANNELS
    last.weight[:, :, 1, 1] = -torch.eye(CHANNELS).repeat_interleave(group, 1) / group  # cancels the shortcut around it
    last.weight[:, :_QUARTER, 1, 1] += analysis.T
    last.bias.copy_(-mean @ analysis)


def _decode_with(decoder: Any, mean: Tensor, synthesis: Tensor) -> None:
    """Set the decoder to the inverse projection and two pixel shuffles; the last norm and ReLU are the identity above -1.5."""
    first, last, width = decoder.conv_in, decoder.conv_out.conv, WIDTHS[1]
    _zero(first)
    first.weight[:, :, 1, 1] = -torch.eye(CHANNELS).repeat_interleave(width // CHANNELS, 0)
    first.weight[:_QUARTER, :, 1, 1] += synthesis
    first.bias[:_QUARTER] = mean
    decoder.up_blocks[1][-1].norm.bias[_HALF:] = _ANCHOR
    norm, spare = decoder.norm_out, WIDTHS[0] - _HALF
    norm.weight.zero_()
    norm.bias.zero_()
    norm.weight[:_HALF] = _ANCHOR * (spare / WIDTHS[0]) ** 0.5
    norm.bias[:_HALF] = _LIFT
    _zero(last)
    last.weight[:, :_HALF, 1, 1] = torch.eye(_HALF)
    last.bias.fill_(-_LIFT)


def _zero(convolution: Any) -> None:
    convolution.weight.zero_()
    convolution.bias.zero_()


def train_laptop_vae(
    data: str | Path | Sequence[str | Path], out: str | Path, config: LaptopVAETraining = LaptopVAETraining()
) -> VAEReport:
    """Train the VAE of preset 'laptop'; see `train_vae`."""
    return train_vae(_Laptop(), data, out, config)
