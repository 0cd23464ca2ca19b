"""Find data sets inside wrappers such as MMEngine's `ConcatDataset` and `RepeatDataset` or torch's `Subset`."""

import copy
import random
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from torch.utils.data import Dataset

from .epoch_index import EpochIndex

#: Attributes in which wrappers keep data sets that are not torch `Dataset`s, such as MMEngine's `RepeatDataset`.
_ATTRIBUTES = ('dataset', 'datasets', '_dataset', '_datasets')


def all_datasets(dataset: Any) -> Iterator[Any]:
    """Yield a data set and all data sets inside it, from the outside in; a data set that wraps none yields only itself."""
    seen: set[int] = set()
    waiting = [dataset]
    while waiting:
        found = waiting.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [child for children in _children(found).values() for child in children][::-1]


def dataset_configs(config: Any) -> Iterator[ConfigDict]:
    """Yield the config of a data set and those of all data sets inside it, from the outside in."""
    if isinstance(config, ConfigDict):
        yield config
        for name in _ATTRIBUTES:
            inner = config.get(name)
            for one in inner if isinstance(inner, list | tuple) else [inner]:
                yield from dataset_configs(one)


def check_wrappers(dataset: Any) -> None:
    """Check, without reading a sample, that wrappers pass on the epoch and the seed of an `EpochIndex`.

    Raises:
        ValueError: A wrapper, which the message names, passes on a plain number. Augmentations, masks and noise inside it
            would depend on the workers, and a latent cache would always show the same view.
    """
    for wrapper in all_datasets(dataset):
        below = [child for children in _children(wrapper).values() for child in children]
        if any(isinstance(inner, BaseDataset) for child in below for inner in all_datasets(child)):
            _check_wrapper(wrapper)


def _check_wrapper(wrapper: Any) -> None:
    name, last = type(wrapper).__name__, len(wrapper) - 1
    for number in sorted({0, last} - {-1}):
        try:
            _stubbed(wrapper)[EpochIndex(number)]
        except _Asked as asked:
            if isinstance(asked.index, EpochIndex):
                continue
            raise ValueError(
                f'{name} hands a plain {type(asked.index).__name__} to the data set that it wraps, so the epoch and the seed '
                'of EpochSampler are lost: let it pass on the index that it is given (index.at(number) for another number), '
                'or use a wrapper of MMEngine or torch'
            ) from None
        except Exception as error:
            reason = f'{type(error).__name__}: {error}'
        else:
            reason = 'it asked the data set that it wraps for nothing'
        MMLogger.get_current_instance().warning(
            f'whether {name} hands on the epoch and the seed of EpochSampler cannot be tried ({reason}): if it does not, '
            'augmentations and noise do not depend on them'
        )
        return


def _children(dataset: Any) -> dict[str, list[Any]]:
    """Name of each attribute that holds data sets -> these data sets."""
    found = {}
    for name, value in getattr(dataset, '__dict__', {}).items():
        values = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        if values and all(isinstance(one, Dataset) or (name in _ATTRIBUTES and _can_be_indexed(one)) for one in values):
            found[name] = list(values)
    return found


def _can_be_indexed(value: Any) -> bool:
    return hasattr(value, '__getitem__') and not isinstance(value, str | bytes | Mapping | list | tuple)


def _stubbed(wrapper: Any) -> Any:
    """Copy a wrapper, with stubs instead of the data sets that it wraps.

    Lists, dicts, sets and random generators in its attributes are copied; objects inside them, and all others, are shared.
    """
    clone = object.__new__(type(wrapper))
    clone.__dict__.update({name: _copied(value) for name, value in wrapper.__dict__.items()})
    for name, children in _children(wrapper).items():
        value, stubs = wrapper.__dict__[name], [_Stub(child) for child in children]
        if isinstance(value, Mapping):
            clone.__dict__[name] = dict(zip(value, stubs, strict=True))
        else:
            clone.__dict__[name] = stubs if isinstance(value, list | tuple) else stubs[0]
    return clone


def _copied(value: Any) -> Any:
    """Copy a value that reading a sample may change, such as a cache, a list or a random generator."""
    if isinstance(value, torch.Generator):
        return value.clone_state()
    if isinstance(value, random.Random | np.random.Generator | np.random.RandomState):
        return copy.deepcopy(value)
    return copy.copy(value) if isinstance(value, list | dict | set) else value


class _Asked(BaseException):
    """Carries the requested index out of a wrapper; a BaseException, so that `except Exception` does not catch it."""

    def __init__(self, index: Any) -> None:
        self.index = index


class _Stub:
    """Stand-in for a data set with its attributes and length, which raises `_Asked` when a sample is requested."""

    def __init__(self, dataset: Any) -> None:
        self._stands_for = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['_stands_for'], name)

    def __len__(self) -> int:
        return len(self._stands_for)

    def __getitem__(self, index: Any) -> NoReturn:
        raise _Asked(index)

    def __getitems__(self, indices: list) -> NoReturn:
        raise _Asked(indices[0])
