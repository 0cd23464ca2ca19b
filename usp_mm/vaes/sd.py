"""Autoencoders in diffusers' format: Stable Diffusion's `AutoencoderKL`, `AutoencoderDC`, those of tools/train_tiny_vae.py."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usp_mm.strict_loading import Misfit, misfit_error
from usp_mm.weight_files import check_finite, told_misfit

from .base import LOGVAR_MIN, LatentCodec

#: Stable Diffusion's, the default of configs written before diffusers knew the key.
_DEFAULT_SCALE = 0.18215


class DiffusersCodec(LatentCodec):
    """A codec whose network is a diffusers `AutoencoderKL`."""

    def network_encode(self, images: Tensor) -> Tensor:
        moments: Tensor = self._loaded().encode(images).latent_dist.parameters
        return moments

    def network_decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self._loaded().decode(latents).sample
        return images


class DeterministicCodec(DiffusersCodec):
    """A codec whose network is a diffusers `AutoencoderDC`, whose latents have no spread: the log-variance is the lowest."""

    def network_encode(self, images: Tensor) -> Tensor:
        latents: Tensor = self._loaded().encode(images).latent
        return torch.cat([latents, torch.full_like(latents, LOGVAR_MIN)], dim=1)


def read_config(path: str, obtain: str, architecture: str = 'AutoencoderKL') -> tuple[dict[str, Any], dict[str, str]]:
    """The `config.json` of a folder or hub model, and the arguments that `from_pretrained` finds its weights with.

    Args:
        path: a folder with the autoencoder, a folder with a whole pipeline, or a hub id.
        obtain: how to get the weights, for the error.
        architecture: the class of diffusers that it must be.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not of that class.
    """
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{path} is a file, but a diffusers autoencoder is a folder with 'config.json' and weights: {obtain}")
    if folder.is_dir():
        subfolder = 'vae' if (folder / 'vae' / 'config.json').is_file() and not (folder / 'config.json').is_file() else ''
        file = folder / subfolder / 'config.json'
        if not file.is_file():
            raise FileNotFoundError(f"{path} holds neither 'config.json' nor 'vae/config.json': {obtain}")
        config, arguments = json.loads(file.read_text()), {'subfolder': subfolder} if subfolder else {}
    elif re.fullmatch(r'[\w.-]+/[\w.-]+', path):
        config, arguments = _hub_config(path, obtain), {}
    else:
        raise FileNotFoundError(f'{path} does not exist: {obtain}')
    if config.get('_class_name') != architecture:
        raise ValueError(f"{path} is a diffusers '{config.get('_class_name')}', but the codec reads an '{architecture}'")
    return config, arguments


def _hub_config(hub_id: str, obtain: str) -> dict[str, Any]:
    from diffusers import AutoencoderKL

    try:
        config: dict[str, Any] = AutoencoderKL.load_config(hub_id)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(f'{hub_id} is no folder here, and the hub did not give it: {obtain} ({reason})') from error
    return config


def check_config(config: dict[str, Any], name: str, row: dict[str, Any], path: str, own_scale: bool) -> tuple[float, float]:
    """Compare a folder's config with the preset's row.

    Args:
        config: of the folder.
        name, row: the preset.
        path: named in errors.
        own_scale: whether the folder, and not the preset, says the scale.

    Returns:
        Scale and shift.

    Raises:
        ValueError: they differ in channels, stride or scale.
    """
    scale = float(config.get('scaling_factor') or _DEFAULT_SCALE)
    shift = float(config.get('shift_factor') or 0.0)
    found = {
        'channels': config.get('latent_channels', 4),
        'stride': 2 ** (len(config.get('block_out_channels') or config.get('encoder_block_out_channels', [64])) - 1),
    }
    for key, value in found.items():
        if value != row[key]:
            raise ValueError(f"{path} has latent {key} {value}, but VAE '{name}' has {row[key]}: name the VAE that it is")
    if own_scale:
        return scale, shift
    if not math.isclose(scale, row['scale'], rel_tol=1e-6) or shift:
        raise ValueError(
            f"{path} scales latents by {scale} (shift {shift}), but VAE '{name}' by {row['scale']} (shift 0.0): "
            'name the VAE that it is, or correct its config.json'
        )
    return scale, shift


def load_network(path: str, arguments: dict[str, str], obtain: str, architecture: str = 'AutoencoderKL') -> torch.nn.Module:
    """The autoencoder in float32, every weight of it from the file (safetensors, else a pickle read as data).

    Raises:
        FileNotFoundError: no readable weights.
        ValueError: parameters are missing, unexpected, of another shape or not finite.
    """
    import diffusers

    try:
        network, report = getattr(diffusers, architecture).from_pretrained(
            path, torch_dtype=torch.float32, low_cpu_mem_usage=False, output_loading_info=True, **arguments
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(f'{path} holds no weights that can be read as data: {obtain} ({reason})') from error
    except (RuntimeError, ValueError) as error:
        raise misfit_error(path, 'its config.json', told_misfit(error), obtain) from error
    mismatched = [str(one) for key in ('mismatched_keys', 'error_msgs') for one in report.get(key) or ()]
    if found := Misfit(tuple(report['missing_keys']), tuple(report['unexpected_keys']), tuple(mismatched)):
        raise misfit_error(path, 'its config.json', found, obtain)
    loaded: torch.nn.Module = network
    check_finite(loaded.state_dict(), path)
    return loaded
