"""Control the precision of float32 arithmetic on a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import backends

T = TypeVar('T')


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 convolutions and matrix products on a GPU, within the block.

    This works with each of torch's settings: `allow_tf32`, `torch.set_float32_matmul_precision` and, since torch 2.9,
    `fp32_precision`. All of them are restored after the block, and those that can be read before it can be read inside.
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
            if setting.fp32_precision != applied:  # torch's initial state of convolutions (inherited TF32) can't be set again
                setting.fp32_precision = applied


def _older_settings() -> list[tuple[Callable[[Any], None], Any, Any, Any]]:
    """The older settings: the function that sets one, its value, and the values that allow and forbid TF32.

    Settings that can't be read are left out: reading raises while a newer setting contradicts the older one.
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
    """The newer settings, each followed by those that it inherits from while it is 'none'; empty before torch 2.9.

    The first three are the GPU's; the last is the CPU's, which `torch.set_float32_matmul_precision` changes too.
    """
    if not hasattr(backends, 'fp32_precision'):
        return []
    cudnn: Any = backends.cudnn  # its own `fp32_precision` is that of all of CUDA
    mkldnn: Any = backends.mkldnn
    gpu = (backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    return [*((setting, cudnn, backends) for setting in gpu), (mkldnn.matmul, backends)]


def _own_value(setting: Any, *followed: Any) -> str:
    """The setting's own value, 'none' if it is inherited; torch itself only reports the value that applies."""
    applies = setting.fp32_precision
    if not followed:
        return applies
    before, other = _own_value(*followed), 'ieee' if applies == 'tf32' else 'tf32'
    followed[0].fp32_precision = other
    follows = setting.fp32_precision == other
    followed[0].fp32_precision = before
    return 'none' if follows else applies
