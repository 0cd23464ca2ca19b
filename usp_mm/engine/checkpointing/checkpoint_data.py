"""CheckpointDataHook: checkpoints that hold data alone, so that the reader of `usp_mm.fileio.weights` takes each of them."""

from collections import Counter, OrderedDict, deque
from datetime import date, time
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from torch import Tensor

from usp_mm.compat.torch import NUMPY_DTYPES
from usp_mm.registry import HOOKS

#: Types that `torch.load(weights_only=True)` reads as they are.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.Size, torch.dtype, torch.device, HistoryBuffer)


@HOOKS.register_module()
class CheckpointDataHook(Hook):
    """Save only what can be read back: data, never code.

    Config dicts become dicts, paths become strings, named tuples become tuples, enums become their values, NumPy values of
    types that are not in `usp_mm.compat.torch.NUMPY_DTYPES` become lists and numbers, dates become strings and classes their
    qualified names. Anything else (functions, modules, objects) is left out, and the log says so once.

    The weights themselves are not checked.
    """

    priority = 'LOWEST'  # after all hooks that write into the checkpoint

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        dropped: list[str] = []
        for key in [key for key in checkpoint if key != 'state_dict']:
            checkpoint[key] = plain(checkpoint[key], key, dropped)
        new = [what for what in dropped if what not in self._logged]
        if new:
            self._logged.update(new)
            runner.logger.info(f'left out of checkpoints, which hold data alone: {", ".join(new)}')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # MMEngine compares pickled bytes, and would warn although the values are equal
        meta, dataset = checkpoint.get('meta', {}), getattr(runner._train_loop, 'dataloader', None)
        current = getattr(getattr(dataset, 'dataset', None), 'metainfo', None)
        if 'dataset_meta' in meta and current is not None and same(meta['dataset_meta'], plain(current)):
            meta['dataset_meta'] = current


def plain(value: Any, place: str = '', dropped: list[str] | None = None) -> Any:
    """Convert `value` to the types that can be read back from a checkpoint.

    Args:
        value: Any value, nested or not.
        place: Name of the value in `dropped`.
        dropped: List that receives the names and types of what is left out. A value that is left out is removed from a dict,
            list or set, and replaced by None elsewhere.
    """
    return None if (made := _readable(value, place, [] if dropped is None else dropped)) is _Dropped else made


def same(one: Any, other: Any) -> bool:
    """Whether two results of `plain` are equal, arrays by their content."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)


class _Dropped:
    """Marks a value that is left out."""


def _readable(value: Any, place: str, dropped: list[str]) -> Any:
    if type(value) in _PLAIN or type(value) in (Tensor, torch.nn.Parameter):
        return value
    if isinstance(value, dict):
        mapping = type(value) if type(value) in (OrderedDict, Counter) else dict
        pairs = [(_readable(key, place, dropped), _readable(item, f'{place}.{key}', dropped)) for key, item in value.items()]
        return mapping({key: item for key, item in pairs if key is not _Dropped and item is not _Dropped})
    if isinstance(value, list | tuple | set | frozenset):
        kind = list if isinstance(value, list) else tuple if isinstance(value, tuple) else set
        items = (_readable(item, f'{place}.{i}', dropped) for i, item in enumerate(value))
        return kind(item for item in items if item is not _Dropped)
    if isinstance(value, np.ndarray | np.generic):
        return _plain_array(value, place, dropped)
    return _plain_scalar(value, place, dropped)


def _plain_array(value: np.ndarray | np.generic, place: str, dropped: list[str]) -> Any:
    if value.dtype.name in NUMPY_DTYPES and type(value) in (np.ndarray, value.dtype.type):
        return value
    return _readable(value.tolist(), place, dropped) if value.dtype.kind in 'biufcUSO' else str(value)


def _plain_scalar(value: Any, place: str, dropped: list[str]) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return _readable(value.value, place, dropped)
    if isinstance(value, range | deque):
        return _readable(list(value), place, dropped)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, type):  # as the `type` of a config in Python's own style
        return f'{value.__module__}.{value.__qualname__}'
    base: Any = next((kind for kind in (int, float, complex, str, bytes) if isinstance(value, kind)), None)
    if base is not None:  # a subclass
        return base(value)
    if isinstance(value, Tensor):
        return value.detach()
    dropped.append(f'{place} (a {type(value).__name__})')
    return _Dropped
