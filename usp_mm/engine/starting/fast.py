"""`--fast` of the tools: write settings into the config that change rounding but not results."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config

from usp_mm.registry import MODELS
from usp_mm.vaes.settings import vae_settings

from ..checks.config.accepted_keys import arguments
from ..optim.amp import optimizer_wrappers, slow_bfloat16, train_in_bfloat16


def make_fast(cfg: Config, task: str = 'train') -> list[str]:
    """Set bfloat16, compiled blocks, a fused optimizer, and bfloat16 for a frozen VAE, where the config has these parts.

    A value that the config sets to anything but its default is kept. Without `--fast`, configs use the official arithmetic.

    In a test, Inception's convolutions also work in channels_last.

    Args:
        cfg: Config to change in place.
        task: 'train', 'test' or 'sample'.

    Returns:
        Lines for the log that say what was set, and what was kept and why.

    Raises:
        ValueError: The optimizer wrapper may cast in its own way, as with `--amp`.
    """
    done: list[str] = []
    left: list[str] = []
    if task == 'train':
        train_in_bfloat16(cfg, '--fast')
        done.append('bfloat16 autocast (AutocastOptimWrapper)')
        _fuse(cfg, done, left)
    elif task == 'test' and 'denoiser' not in cfg.model:
        cfg.test_cfg.fp16 = True
        done.append('test_cfg.fp16=True (autocast, in float16 on a GPU)')
    if 'denoiser' in cfg.model:
        cfg.model.sample_dtype = 'bfloat16'
        done.append("model.sample_dtype='bfloat16'")
    if task == 'test':
        _lay_out_inception(cfg.get('test_evaluator'), done)
    _compile(cfg.model, done, left)
    _cast_vae(cfg.model, done, left)
    lines = [f'--fast: {", ".join(done)}']
    lines += [f'--fast leaves {what}' for what in left]
    return lines + ([slow] if (slow := slow_bfloat16('--fast')) else [])


def _is_ours(model: Any) -> bool:
    kind = model.get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    return cls is not None and 'compile' in arguments(cls).kinds


def _compile(model: Any, done: list[str], left: list[str]) -> None:
    if not _is_ours(model):
        left.append(f'{model.get("type")} eager: it is no model of this package, with an argument `compile`')
    elif chosen := model.get('compile') or model.get('compile_denoiser'):
        left.append(f'model.compile={chosen!r} as it is')
    else:
        model.compile = 'blocks'
        done.append("model.compile='blocks'")


def _lay_out_inception(evaluator: Any, done: list[str]) -> None:
    metrics = evaluator.get('metrics', evaluator) if isinstance(evaluator, dict) else evaluator
    for metric in metrics if isinstance(metrics, list) else [metrics]:
        if isinstance(metric, dict) and metric.get('type') == 'ADMMetrics' and 'channels_last' not in metric:
            metric['channels_last'] = True
            done.append('ADMMetrics.channels_last=True')


def _fuse(cfg: Config, done: list[str], left: list[str]) -> None:
    for place, wrapper in optimizer_wrappers(cfg):
        optimizer = wrapper.get('optimizer')
        if not isinstance(optimizer, dict):
            continue
        kind = optimizer.get('type')
        cls = getattr(torch.optim, kind, None) if isinstance(kind, str) else kind
        if not torch.cuda.is_available():
            left.append(f'{place}.optimizer as it is: fused ones are for GPUs')
        elif optimizer.get('fused') is not None or optimizer.get('foreach'):
            left.append(f'{place}.optimizer as it is: it sets fused or foreach')
        elif cls is None or not str(cls.__module__).startswith('torch.') or 'fused' not in inspect.signature(cls).parameters:
            left.append(f'{place}.optimizer as it is: {kind} has no fused kernels')
        else:
            optimizer['fused'] = True
            done.append(f'{place}.optimizer.fused=True')


def _cast_vae(model: Any, done: list[str], left: list[str]) -> None:
    for place, part in _encoding(model):
        vae = vae_settings(part.get('vae'))
        if vae['name'] == 'pixel':
            continue
        if model.get('backbone', {}).get('train_vae'):
            left.append(f'{place}.vae.dtype float32: the VAE is trained')
        elif chosen := vae.get('dtype'):
            left.append(f'{place}.vae.dtype={chosen!r} as it is')
        else:
            part['vae'] = {**vae, 'dtype': 'bfloat16'}
            done.append(f"{place}.vae.dtype='bfloat16'")


def _encoding(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the place and the config of the part that encodes images in a model of this package."""
    if not _is_ours(model):
        return
    if (backbone := model.get('backbone', {})).get('encode_images'):
        yield 'model.backbone', backbone
    elif model.get('type') != 'USPSegmentor':
        yield 'model.data_preprocessor', model.setdefault('data_preprocessor', {})
