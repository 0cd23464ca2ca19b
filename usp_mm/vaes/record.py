"""Record in `meta['vae']` of a checkpoint the VAE on whose latents a network was trained, and compare it later."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.weights import Checkpoint, read_checkpoint

from .base import LatentCodec

#: Key in a checkpoint's `meta`.
KEY = 'vae'
#: Config key that permits another VAE.
ALLOW = 'allow_other_vae'
Record = Mapping[str, Any]
_AFFINE = ('scale', 'shift')
_TOLERANCE = 1e-6


def codec_of(model: Any) -> LatentCodec | None:
    """The frozen VAE in front of a model's network; None if there is none, or if the model trains its VAE."""
    backbone: Any = getattr(model, 'backbone', None)
    if getattr(backbone, 'codec', None) is not None:
        codec: LatentCodec = backbone.codec
        return codec if getattr(backbone, 'vae_encoder', None) is None else None
    found: LatentCodec | None = getattr(getattr(model, 'data_preprocessor', None), 'codec', None)
    return found


def vae_record(codec: LatentCodec | None, weight_hash: str | None = None) -> dict[str, Any] | None:
    """Describe a VAE as dict(name, weight_hash, scale, shift); None without a VAE.

    Scale and shift are numbers or lists with one number per channel; both are None if the VAE still lacks its statistics.

    Args:
        codec: The VAE.
        weight_hash: Hash of the weights if they are not loaded, as given in the latent cache; None if it is not known.
    """
    if codec is None:
        return None
    scale, shift = (None, None) if codec.scale is None else map(as_numbers, (codec.scale, codec.shift))
    known = weight_hash if codec.network is None else codec.weight_hash
    return dict(name=codec.name, weight_hash=known, scale=scale, shift=shift)


def compare_vae(found: Record | None, ours: Record | None, checkpoint: str | Path, warn: bool) -> str | None:
    """Compare a checkpoint's VAE with the one in use; return a line for the log, or None if they agree or `ours` is None.

    Weights, scale and shift are compared only if both records have them.

    Args:
        found: Record in the checkpoint, or None if it has none.
        ours: Record of the VAE in use.
        checkpoint: Name of the checkpoint for the message.
        warn: Whether to return the line for another VAE instead of raising an error.

    Raises:
        ValueError: The VAEs differ, unless `warn`.
    """
    if ours is None:
        return None
    if found is None:
        return f"'{checkpoint}' does not say which VAE it was trained with, so {describe_record(ours)} is not compared with it"
    hashes, others = (found.get('weight_hash'), ours['weight_hash']), _other_numbers(found, ours)
    if found.get('name') == ours['name'] and (None in hashes or hashes[0] == hashes[1]) and not others:
        return None
    theirs, own = (''.join(f', {what} {pair[side]}' for what, pair in others.items()) for side in (0, 1))
    line = f"'{checkpoint}' was trained with VAE {describe_record(found, theirs)}, this run has {describe_record(ours, own)}"
    if warn:
        return line
    raise ValueError(
        f'{line}: give its own with vae.name, vae.path or vae.stats of model.data_preprocessor (of model.backbone in a '
        f'segmentor), or allow another one with {ALLOW}=True in the config (--cfg-options)'
    )


def check_vae(checkpoint: str | Path, found: Record | None, ours: Record | None, allow: bool) -> None:
    """Call `compare_vae` and log the line that it returns.

    Raises:
        ValueError: The VAEs differ, unless `allow`.
    """
    line = compare_vae(found, ours, checkpoint, warn=allow)
    if line:
        logger = MMLogger.get_current_instance()
        (logger.info if found is None else logger.warning)(line)


def check_model_vae(checkpoint: Checkpoint, codec: LatentCodec | None, cfg: Any, weight_hash: str | None = None) -> None:
    """Call `check_vae` for a model that was built from a config; the config may allow another VAE.

    Args:
        checkpoint: The checkpoint of the model's weights.
        codec: The model's VAE, see `codec_of`.
        cfg: The config; a model's name (as in mmpretrain) does not allow another VAE.
        weight_hash: See `vae_record`.

    Raises:
        ValueError: The VAEs differ, unless the config has `allow_other_vae=True`.
    """
    allow = not isinstance(cfg, str) and bool(cfg.get(ALLOW))
    check_vae(checkpoint.path, record_in(dict(meta=checkpoint.meta)), vae_record(codec, weight_hash), allow)


def read_record(checkpoint: str | Path) -> dict[str, Any] | None:
    """Read the record in a checkpoint file without reading its tensors; None if it has none."""
    if not zipfile.is_zipfile(local_file(checkpoint)):
        return None
    return record_in(read_checkpoint(checkpoint, mmap=True, verify=False))


def record_in(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record in the content of a checkpoint; None if it has none."""
    meta = content.get('meta')
    found = meta.get(KEY) if isinstance(meta, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else None


def describe_record(record: Record, more: str = '') -> str:
    """A record in words, for messages; `more` is appended after the weights."""
    known = record.get('weight_hash')
    return f"'{record.get('name')}' ({f'weights {known}' if known else 'weights not loaded'}{more})"


def as_numbers(value: Any) -> Any:
    """Turn a tensor into a list for JSON; any other value is returned unchanged."""
    return value.flatten().tolist() if isinstance(value, Tensor) else value


def _numbers(value: Any) -> list[float]:
    """Turn one number or several into a list; empty if a file of another project holds something else there."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values if all(isinstance(x, int | float) for x in values) else []


def _other_numbers(found: Record, ours: Record) -> dict[str, tuple[str, str]]:
    """'scale' and 'shift', if both records have them and they differ by more than rounding -> both values as text."""
    others = {}
    for what in _AFFINE:
        first, second = _numbers(found.get(what)), _numbers(ours.get(what))
        if not first or not second:
            continue
        if len(first) != len(second):
            others[what] = (f'of {len(first)} channels', f'of {len(second)} channels')
            continue
        for channel, pair in enumerate(zip(first, second, strict=True)):
            if not math.isclose(*pair, rel_tol=_TOLERANCE):
                where = f' in channel {channel}' if len(first) > 1 else ''
                others[what] = (f'{pair[0]:.7g}{where}', f'{pair[1]:.7g}{where}')
                break
    return others
