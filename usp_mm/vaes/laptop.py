"""An autoencoder for pictures in colour (stride 4, 4 latent channels), trained in minutes on two CPU cores.

It is diffusers' `AutoencoderDC` (DC-AE, arXiv 2410.10733), whose shortcuts carry pixels to the coarse grid and back, with no
convolution at full resolution. Before the first step it is the principal component analysis of the images' 4 × 4 patches,
the best that anything linear does; training adds to that what is not linear.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from usp_mm.options import LaptopVAETraining

from .training import VAEReport, train_vae

CHANNELS, STRIDE = 4, 4
#: Channels at half and at a quarter of the resolution. The second is four times the first, so that shortcuts lose nothing.
WIDTHS = (16, 64)
#: Numbers of a patch of 2 × 2 and of 4 × 4 pixels in colour.
_HALF, _QUARTER = 12, 48
#: Patches for the components: those of as many images of the training data.
_PCA_IMAGES = 1000
#: A constant beside the 12 numbers of a pixel group, so large that the decoder's last norm divides by it and little else.
_ANCHOR = 8.0
#: Lifts [-1, 1] above the ReLU that follows that norm.
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
    """A randomly initialised diffusers `AutoencoderDC` with 4 latent channels and stride 4.

    Args:
        seed: of the weights; torch's global generator is left as it was.
        scaling_factor: for its config.
    """
    from diffusers import AutoencoderDC

    widths, no_attention = (WIDTHS[0], *WIDTHS), ((), (), ())  # no layer at full resolution, whose width says nothing
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
    """Make the autoencoder of `make_laptop_vae` that of the principal components of the images' patches.

    Latents then are the first components, of zero mean and unit variance each. Blocks add nothing yet, because their last
    norms begin at zero.

    Args:
        vae: changed in place.
        images: float32[N, 3, H, W] in [-1, 1].
    """
    mean, components, deviations = _principal_components(images)
    for block in vae.modules():
        if type(block).__name__ == 'ResBlock':
            block.norm.weight.zero_()
    for block in (vae.encoder.down_blocks[1][-1], vae.decoder.up_blocks[1][0]):  # what is beside their shortcuts
        _zero(block.conv)
    _encode_with(vae.encoder, mean, components / deviations)
    _decode_with(vae.decoder, mean, components * deviations)


def _principal_components(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [48], first components [48, 4] and their standard deviations [4], a patch in the order of two unshuffles."""
    patches = F.pixel_unshuffle(F.pixel_unshuffle(images, 2), 2).permute(0, 2, 3, 1).reshape(-1, _QUARTER).double()
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    variances, components = variances.flip(0)[:CHANNELS], components.flip(1)[:, :CHANNELS]
    deviations = variances.clamp(min=1e-4).sqrt()  # images of one colour have none
    return patches.mean(0).float(), components.float(), deviations.float()


def _encode_with(encoder: Any, mean: Tensor, analysis: Tensor) -> None:
    """Every 2 × 2 pixels into channels, the shortcut's unshuffle again, and the components at the end."""
    first, last, width = encoder.conv_in.conv, encoder.conv_out, WIDTHS[1]
    first.weight[:_HALF] = 0
    first.bias[:_HALF] = 0
    for number in range(_HALF):  # of channel, row and column
        first.weight[number, number // 4, 1 + number // 2 % 2, 1 + number % 2] = 1
    _zero(last)
    group = width // CHANNELS
    last.weight[:, :, 1, 1] = -torch.eye(CHANNELS).repeat_interleave(group, 1) / group  # against the shortcut around it
    last.weight[:, :_QUARTER, 1, 1] += analysis.T
    last.bias.copy_(-mean @ analysis)


def _decode_with(decoder: Any, mean: Tensor, synthesis: Tensor) -> None:
    """The components, the shortcut's shuffle, and a last norm, ReLU and shuffle that are the identity on [-1.5, ∞)."""
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
    """`train_vae` for the preset 'laptop'."""
    return train_vae(_Laptop(), data, out, config)
