"""Small weight files of the KL family, and one that must not be read."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from helpers.golden import golden_weights, official_weights
from usp_mm.vaes.kl import KLAutoencoder, KLStructure

#: The golden file's autoencoder: KL-16 at base width 32.
GOLDEN_KL16 = KLStructure(
    base=32, widths=(32, 32, 64, 64, 128), num_blocks=2, z_channels=16, latent_channels=16, encoder_attention=frozenset({4})
)
SMALL_VAVAE = KLStructure(
    base=32, widths=(32,) * 5, num_blocks=1, z_channels=32, latent_channels=32, encoder_attention=frozenset({4})
)


def kl_weights(structure: KLStructure) -> dict[str, Tensor]:
    """Weights by the golden recipe; of the golden file's autoencoder, with the official names and shapes."""
    if structure == GOLDEN_KL16:
        return official_weights('kl16')
    with torch.device('meta'):
        network = KLAutoencoder(structure)
    return golden_weights({name: tensor.shape for name, tensor in network.state_dict().items()})


def save(content: object, path: Path) -> Path:
    """`content` as `path`'s suffix says."""
    if path.suffix == '.safetensors':
        assert isinstance(content, dict)
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def small_taesd() -> Any:
    """A diffusers `AutoencoderTiny` with the strides and latents of `madebyollin/taesd`, 8 channels wide."""
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths, blocks = (8, 8, 8, 8), (1, 1, 1, 1)
        vae = AutoencoderTiny(
            encoder_block_out_channels=widths, decoder_block_out_channels=widths, num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
        )  # fmt: skip
        vae.encoder.layers[-1].weight.data *= 50  # latents of the size that trained ones have, about 1
        return vae


class Bomb:
    """Creates a file when unpickled as code."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)
