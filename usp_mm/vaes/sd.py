"""VAEs in diffusers' format: `AutoencoderKL` (Stable Diffusion), `AutoencoderTiny` (TAESD) and `AutoencoderDC`."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usp_mm.fileio.addresses import hub_silence
from usp_mm.fileio.strict_loading import Misfit, misfit_error
from usp_mm.fileio.weights import check_finite, misfit_line

from .base import LOGVAR_MIN, LatentCodec

#: Stable Diffusion's scale, which applies if a config is older than diffusers' key for it.
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
    """A codec whose network is a diffusers `AutoencoderDC`. Its posterior has no variance: the log-variance is `LOGVAR_MIN`."""

    def network_encode(self, images: Tensor) -> Tensor:
        latents: Tensor = self._loaded().encode(images).latent
        return torch.cat([latents, torch.full_like(latents, LOGVAR_MIN)], dim=1)


class TinyCodec(DiffusersCodec):
    """A codec whose network is a diffusers `AutoencoderTiny` (TAESD, github.com/madebyollin/taesd), without a variance, too."""

    def network_encode(self, images: Tensor) -> Tensor:
        latents: Tensor = self._loaded().encode(images).latents
        return torch.cat([latents, torch.full_like(latents, LOGVAR_MIN)], dim=1)


def read_config(path: str, obtain: str, architecture: str = 'AutoencoderKL') -> tuple[dict[str, Any], dict[str, str]]:
    """Read the `config.json` of a folder or hub model, and find the arguments of `from_pretrained` for its weights.

    Args:
        path: A folder with the VAE or with a whole pipeline, or a hub id.
        obtain: How to get the weights, for the error message.
        architecture: The diffusers class that the config must name.

    Raises:
        FileNotFoundError: There is no model at `path`.
        ValueError: The model is of another class.
    """
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{path} is a file, but a VAE of diffusers is a folder with 'config.json' and weights: {obtain}")
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
        config: dict[str, Any] = AutoencoderKL.load_config(hub_id, local_files_only=hub_silence() is not None)
    except OSError as error:
        reason = hub_silence() or str(error).splitlines()[0]
        raise FileNotFoundError(f'{hub_id} is no folder here, and the hub did not give it: {obtain} ({reason})') from error
    return config


def check_vae_config(config: dict[str, Any], name: str, row: dict[str, Any], path: str, own_scale: bool) -> tuple[float, float]:
    """Compare a folder's config with the preset's row.

    Args:
        config: Config of the folder.
        name, row: Name and row of the preset.
        path: Name of the folder for error messages.
        own_scale: Whether the scale is taken from the folder's config instead of the preset.

    Returns:
        Scale and shift.

    Raises:
        ValueError: Folder and preset differ in channels, stride or scale.
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
    """Load the VAE in float32; the file (safetensors, else a pickle read as data) must hold every weight.

    Raises:
        FileNotFoundError: There are no readable weights.
        ValueError: Parameters are missing, unexpected, of another shape or not finite.
    """
    import diffusers

    try:
        network, report = getattr(diffusers, architecture).from_pretrained(
            path,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            local_files_only=Path(path).is_dir() or hub_silence() is not None,
            **arguments,
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(f'{path} holds no weights that can be read as data: {obtain} ({reason})') from error
    except (RuntimeError, ValueError) as error:
        raise misfit_error(path, 'its config.json', misfit_line(error), obtain) from error
    mismatched = [str(one) for key in ('mismatched_keys', 'error_msgs') for one in report.get(key) or ()]
    if found := Misfit(tuple(report['missing_keys']), tuple(report['unexpected_keys']), tuple(mismatched)):
        raise misfit_error(path, 'its config.json', found, obtain)
    loaded: torch.nn.Module = network
    check_finite(loaded.state_dict(), path)
    return loaded
