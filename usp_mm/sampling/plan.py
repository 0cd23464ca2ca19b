"""Describe the content of a file of samples before the first is drawn; the description stays the same on every resume."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from usp_mm.datasets import SampleRequests
from usp_mm.fileio.atomic import sha256
from usp_mm.fileio.weights import weights_hash
from usp_mm.renaming.arguments import recorded_weights
from usp_mm.vaes.record import as_numbers

from .loaded import LoadedGenerator

FORMAT_VERSION = 1
_DIGITS = 16
#: Settings of the denoiser that only its training reads.
_TRAINING_ONLY = ('init_cfg', 'class_dropout', 'with_cp', 'route')
_LIBRARIES = ('usp-mm', 'torch', 'mmengine', 'diffusers')


def make_sample_plan(loaded: LoadedGenerator, requests: SampleRequests, sample_model: str | None) -> dict[str, Any]:
    """Everything on which the samples' pixels depend, as JSON values; not batch size, processes, paths or device.

    If the checkpoint is unknown, the plan has a hash of the weights, `weights_sha256`, in place of the file's.

    Args:
        loaded: Any generator.
        requests: Labels of the samples.
        sample_model: Weights to sample with, 'ema' or 'model'; None for the model's own choice.
    """
    asked = {key: requests.metainfo[key] for key in ('label_mode', 'seed', 'num_samples', 'num_classes')}
    model, checkpoint = loaded.model, loaded.weights
    codec = model.data_preprocessor.codec
    plan = dict(
        format_version=FORMAT_VERSION,
        **asked,
        labels_sha256=labels_digest(requests.labels),
        image_size=model.denoiser.geometry.img_size,
        checkpoint_sha256=None if checkpoint is None else sha256(checkpoint)[:_DIGITS],
        denoiser=None if loaded.config is None else _settings(loaded.config),
        vae=dict(name=codec.name, weight_hash=codec.weight_hash, dtype=str(codec.dtype), scale=as_numbers(codec.scale)),
        **model.describe(sample_model),
    )
    if checkpoint is None:
        plan['weights_sha256'] = weights_hash(model.network(sample_model))
    return json.loads(json.dumps(plan))


def _settings(config: Config) -> dict[str, Any]:
    settings = config.model.to_dict()['denoiser']
    return {key: value for key, value in settings.items() if key not in _TRAINING_ONLY}


def make_facts(loaded: LoadedGenerator, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan, and how it was carried out: the facts to report with a score of these samples.

    `config` and `checkpoint` are None if they are unknown.
    """
    device = next(loaded.model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
    versions = dict(python=platform.python_version(), **{name: version(name) for name in _LIBRARIES})
    config = Path(loaded.config.filename).stem if loaded.config is not None and loaded.config.filename else None
    checkpoint = None if loaded.weights is None else str(loaded.weights)
    facts = dict(plan, classes=None if loaded.classes is None else list(map(str, loaded.classes)))
    return dict(facts, config=config, checkpoint=checkpoint, device=f'{device.type} ({name})', versions=versions)


def differences(there: dict[str, Any], now: dict[str, Any]) -> str:
    """'seed: 0 there, 1 now; …' over the keys of the plan `now`; empty if they agree."""
    recorded = {**there, 'sample_model': recorded_weights(there.get('sample_model'))}
    before, after = _flat({key: recorded.get(key) for key in now}), _flat(now)
    return '; '.join(
        f'{key}: {before.get(key)!r} there, {after.get(key)!r} now'
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    )


def labels_digest(labels: Tensor) -> str:
    """A digest that identifies the labels."""
    return hashlib.sha256(labels.numpy().astype('<i8').tobytes()).hexdigest()[:_DIGITS]


def _flat(node: Any, path: str = '') -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    parts = [_flat(value, f'{path}.{key}' if path else str(key)) for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}
