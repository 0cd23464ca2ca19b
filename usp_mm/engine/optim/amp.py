"""`--amp` and `--fast` of usp train: bfloat16 autocast, whatever the config trains with."""

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from usp_mm.runtime.processor import bfloat16_instructions

AUTOCAST = 'AutocastOptimWrapper'
#: What loss scaling and float16 need, which bfloat16 has no use for.
_OF_FLOAT16 = set(inspect.signature(AmpOptimWrapper).parameters) - set(inspect.signature(OptimWrapper).parameters)


def train_in_bfloat16(cfg: Config, flag: str = '--amp') -> None:
    """Replace OptimWrapper, and AmpOptimWrapper with a line in the log, by AutocastOptimWrapper.

    Args:
        cfg: Config to change in place.
        flag: Name of the command line flag that asks for it, used in messages.

    Raises:
        ValueError: The config trains nothing, or has another optimizer wrapper.
    """
    if not cfg.get('optim_wrapper'):
        raise ValueError(f'{flag}: the config has no optim_wrapper, so that nothing is trained')
    for place, wrapper in optimizer_wrappers(cfg):
        _replace(place, wrapper, flag)
    if 'denoiser' in cfg.model:
        cfg.model.sample_dtype = 'bfloat16'


def slow_bfloat16(flag: str = '--amp') -> str | None:
    """A line for the log if this is a CPU without bfloat16 instructions, where bfloat16 is slower than float32; else None."""
    if torch.cuda.is_available() or bfloat16_instructions() != ():
        return None
    return (
        f'{flag}: this processor has no bfloat16 instructions (avx512_bf16, amx_bf16), and without them bfloat16 is slower '
        f"than float32 (training measured on one: 0.58 times float32's speed); leave out {flag}"
    )


def optimizer_wrappers(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place in the config and the settings of each optimizer wrapper."""
    wrapper = cfg.optim_wrapper
    several = 'constructor' in wrapper and not {'optimizer', 'type'} & set(wrapper)
    for place, one in wrapper.items() if several else [('optim_wrapper', wrapper)]:
        if isinstance(one, dict):
            yield f'optim_wrapper.{place}' if several else place, one


def _replace(place: str, wrapper: dict[str, Any], flag: str) -> None:
    kind = wrapper.get('type', 'OptimWrapper')
    name = kind if isinstance(kind, str) else kind.__name__
    if name == 'AmpOptimWrapper':
        dropped = {key: wrapper.pop(key) for key in sorted(_OF_FLOAT16 & wrapper.keys())}
        left_out = ', '.join(f'{key}={value!r}' for key, value in dropped.items()) or 'float16'
        print_log(
            f'{flag}: bfloat16 autocast takes the place of {place} AmpOptimWrapper ({left_out}), as it needs no loss scaling; '
            f'leave out {flag} to train as the config says',
            'current',
            logging.WARNING,
        )
    elif name not in ('OptimWrapper', AUTOCAST):
        raise ValueError(
            f'{flag}: {place}.type is {name}, which is not OptimWrapper or AmpOptimWrapper, and may cast in its own way: leave '
            f'out {flag}, or set {place}.type=OptimWrapper'
        )
    wrapper['type'] = AUTOCAST
