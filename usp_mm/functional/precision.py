"""How float32 is computed on a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import backends

T = TypeVar('T')


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 convolutions and products on a GPU may round to TF32 in the block.

    Whichever of torch's settings the process uses, `allow_tf32`, `torch.set_float32_matmul_precision` or, since torch 2.9,
    `fp32_precision`: after the block all of them say what they said, and those that can be read can be read in the block.
    """
    older = _older_settings()
    newer = [(setting, _own_value(setting, *followed), setting.fp32_precision) for setting, *followed in _newer_settings()]
    for write, before, on, off in older:
        if allowed == (before == off):
            write(on if allowed else off)
    for setting, *_ in newer[:3]:
        setting.fp32_precision = 'tf32' if allowed else 'ieee'
    try:
        yield
    finally:
        for write, before, *_ in older:
            write(before)
        for setting, own, applied in newer:
            setting.fp32_precision = own
            if setting.fp32_precision != applied:  # torch's start for convolutions, TF32 that follows, can't be set again
                setting.fp32_precision = applied


def _older_settings() -> list[tuple[Callable[[Any], None], Any, Any, Any]]:
    """How each is written, its value, and what allows and forbids TF32; without those that can't be read.

    Reading one raises while a newer setting says something else.
    """
    matmul, cudnn = backends.cuda.matmul, backends.cudnn
    settings: list[tuple[Callable[[], Any], Callable[[Any], None], Any, Any]] = [
        (lambda: cudnn.allow_tf32, lambda value: setattr(cudnn, 'allow_tf32', value), True, False),
        (lambda: matmul.allow_tf32, lambda value: setattr(matmul, 'allow_tf32', value), True, False),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, 'high', 'highest'),
    ]
    found = [(write, _readable(read), on, off) for read, write, on, off in settings]
    return [setting for setting in found if setting[1] is not None]


def _readable(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except RuntimeError:
        return None


def _newer_settings() -> list[tuple[Any, ...]]:
    """Each with what it follows while it is 'none' itself; empty before torch 2.9.

    The first three are the GPU's; the last is one that `torch.set_float32_matmul_precision` sets too.
    """
    if not hasattr(backends, 'fp32_precision'):
        return []
    cudnn: Any = backends.cudnn  # its own `fp32_precision` is that of all of CUDA
    mkldnn: Any = backends.mkldnn
    gpu = (backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    return [*((setting, cudnn, backends) for setting in gpu), (mkldnn.matmul, backends)]


def _own_value(setting: Any, *followed: Any) -> str:
    """What it was set to, 'none' if it follows: torch answers what applies."""
    applies = setting.fp32_precision
    if not followed:
        return applies
    before, other = _own_value(*followed), 'ieee' if applies == 'tf32' else 'tf32'
    followed[0].fp32_precision = other
    follows = setting.fp32_precision == other
    followed[0].fp32_precision = before
    return 'none' if follows else applies
