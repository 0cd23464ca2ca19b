"""Build a codec from the name of a preset."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.weights import read_weights
from usp_mm.presets import VAES, lookup, nearest

from . import sd
from .base import LatentCodec
from .kl import load_autoencoder
from .pixel import PixelCodec

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
#: Prefixes of weights in VA-VAE's training checkpoint that are not the VAE's: its losses and the vision model it is aligned to.
TRAINING_ONLY = ('loss.', 'foundation_model.', 'linear_proj.')
#: `codec` of a preset -> the codec's class and the diffusers class of its network.
_ARCHITECTURES: dict[str, tuple[type[sd.DiffusersCodec], str]] = {
    'diffusers': (sd.DiffusersCodec, 'AutoencoderKL'),
    'dc': (sd.DeterministicCodec, 'AutoencoderDC'),
    'taesd': (sd.TinyCodec, 'AutoencoderTiny'),
}
#: Presets whose scale is read from the config.json in their folder.
OWN_SCALE = ('tiny', 'laptop')

Stats = str | Path | Mapping[str, Any] | None


def codec_spec(name: str) -> dict[str, Any]:
    """The row of a preset in `usp_mm.presets.VAES`; raises a ValueError for an unknown name."""
    row: dict[str, Any] = lookup(VAES, name, 'VAE')
    return row


def build_codec(cfg: str | Mapping[str, Any] | LatentCodec, **arguments: Any) -> LatentCodec:
    """Build the codec of a frozen VAE from a config.

    Args:
        cfg: A preset of `usp_mm.presets.VAES`, or a dict of arguments of `build_preset`; a codec is returned unchanged.
        arguments: Arguments of `build_preset` that `cfg` does not have.

    Raises:
        ValueError: A key is unknown, or as in `build_preset`.
        FileNotFoundError: As in `build_preset`.
    """
    if isinstance(cfg, LatentCodec):
        if arguments.get('path') is not None or arguments.get('stats') is not None:
            raise ValueError(f'{cfg!r} is built already: give path and stats to build_codec with its name instead')
        return cfg
    given = {**arguments, **(dict(name=cfg) if isinstance(cfg, str) else cfg)}
    valid = list(inspect.signature(build_preset).parameters)
    for key in given:
        if key not in valid:
            raise ValueError(f"unknown VAE key '{key}': expected {valid}{nearest(key, valid)}")
    if 'name' not in given:
        raise ValueError(f"VAE {given} lacks 'name': one of {sorted(VAES)}")
    return build_preset(**given)


def build_preset(
    name: str,
    path: str | Path | None = None,
    dtype: str | torch.dtype = 'float32',
    encode_batch_size: int | None = None,
    stats: Stats = None,
    load_weights: bool = True,
    channels_last: bool | None = None,
    compile: bool = False,
) -> LatentCodec:
    """Build the codec of a preset, and load and check its weights.

    Args:
        name: A preset of `usp_mm.presets.VAES`.
        path: The weights. For diffusers presets a folder (a VAE or a whole pipeline) or a hub id, by default the preset's hub
            id; for KL presets a `.safetensors`, `.ckpt`, `.pt` or `.pth` file.
        dtype: Dtype of the network: 'float32', 'bfloat16' or 'float16'. Its outputs are always converted to float32.
        encode_batch_size: Images that are encoded or decoded at a time; the whole batch if None.
        stats: Per-channel statistics for presets without a fixed scale (`va-f16d32`): a latent cache's manifest.json, or
            a dict or JSON file with lists 'latent_mean' and 'latent_std'.
        load_weights: False if latents only have to be scaled, as in training from a cache; encoding and decoding then fail.
        channels_last: Whether weights and images use `torch.channels_last`; None uses it on a GPU in bfloat16 and float16.
        compile: Whether to run the network through `torch.compile`, which is faster on a GPU and changes rounding.

    Raises:
        ValueError: The preset or the dtype is unknown, or the weights or statistics do not fit the preset.
        FileNotFoundError: The weights or statistics do not exist.
    """
    row = codec_spec(name)
    if stats is not None and row['scale'] is not None:
        raise ValueError(f"VAE '{name}' has the fixed scale {row['scale']}: remove stats={stats!r}")
    common = dict(
        name=name,
        channels=row['channels'],
        stride=row['stride'],
        patch_size=row['patch_size'],
        scale=row['scale'],
        dtype=lookup(DTYPES, str(dtype).removeprefix('torch.'), 'dtype'),
        encode_batch_size=encode_batch_size,
        channels_last=channels_last,
        compile=compile,
    )
    moments = None if stats is None else read_stats(stats)
    codec = _LOADERS[row['codec']](name, row, None if path is None else str(path), load_weights, common)
    if moments is not None:
        codec.set_stats(*moments)
    return codec


def _diffusers(name: str, row: dict[str, Any], path: str | None, load_weights: bool, common: dict[str, Any]) -> LatentCodec:
    own_scale = name in OWN_SCALE
    if own_scale and path is None:
        raise ValueError(f"VAE '{name}' needs a path: make its folder with `{_made_by(name, row)}`, pass path=OUT")
    codec, architecture = _ARCHITECTURES[row['codec']]
    if not load_weights and not own_scale:
        return codec(None, **common)
    obtain = (
        f'make it with `{_made_by(name, row)}`'
        if own_scale
        else f'download it with `hf download {row["source"]} --local-dir DIR` and pass path=DIR'
    )
    path = path or row['source']
    config, arguments = sd.read_config(path, obtain, architecture)
    scale, shift = sd.check_vae_config(config, name, row, path, own_scale)
    network = sd.load_network(path, arguments, obtain, architecture) if load_weights else None
    return codec(network, **{**common, 'scale': scale, 'shift': shift})


def _made_by(name: str, row: dict[str, Any]) -> str:
    return f'{row["source"]} DATA OUT' + ('' if name == 'tiny' else f' --vae {name}')


def _kl(name: str, row: dict[str, Any], path: str | None, load_weights: bool, common: dict[str, Any]) -> LatentCodec:
    if not load_weights:
        return LatentCodec(None, **common)
    if path is None:
        raise ValueError(f"VAE '{name}' needs a path to its weights: download {row['source']} and pass path=FILE")
    file = local_file(path)
    if not file.exists():
        raise FileNotFoundError(f"{path} does not exist: download {row['source']} for VAE '{name}'")
    weights = {key: x for key, x in read_weights(file).items() if not key.startswith(TRAINING_ONLY)}
    network, structure = load_autoencoder(weights, path)
    for key, value in (('channels', structure.latent_channels), ('stride', structure.stride)):
        if value != row[key]:
            raise ValueError(f"{path} has latent {key} {value}, but VAE '{name}' has {row[key]}: name the VAE that it is")
    return LatentCodec(network, **common)


def _pixel(name: str, row: dict[str, Any], path: str | None, load_weights: bool, common: dict[str, Any]) -> LatentCodec:
    if path is not None:
        raise ValueError(f"VAE '{name}' has no weights: remove path='{path}'")
    return PixelCodec(**common)


_LOADERS = {'diffusers': _diffusers, 'dc': _diffusers, 'taesd': _diffusers, 'kl': _kl, 'pixel': _pixel}


def read_stats(stats: str | Path | Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Read 'latent_mean' and 'latent_std' from a dict or a JSON file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not JSON, or one of the lists is missing.
    """
    content: Any = stats
    if not isinstance(stats, Mapping):
        if not Path(stats).is_file():
            raise FileNotFoundError(f'{stats} is not a file: expected the manifest.json of a latent cache')
        try:
            content = json.loads(Path(stats).read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f'{stats} is not JSON ({error}): expected the manifest.json of a latent cache') from error
    if not isinstance(content, Mapping):
        raise ValueError(f"stats are a {type(content).__name__}: expected lists 'latent_mean' and 'latent_std' by name")
    for key in ('latent_mean', 'latent_std'):
        if not isinstance(content.get(key), (list, tuple)):
            raise ValueError(f"stats have no list '{key}' (found {sorted(content)}): expected 'latent_mean' and 'latent_std'")
    return list(content['latent_mean']), list(content['latent_std'])
