"""A data-set index that carries the epoch and the seed for which it was drawn."""

from collections.abc import Callable
from operator import index as as_integer
from typing import Any


class EpochIndex(int):
    """An `int` index with the attributes `epoch`, `seed` and `sample`.

    A worker process, a transform or the model derives a sample's randomness only from (seed, epoch, sample). Every data
    set can use it as an ordinary index, and `sample_idx` in mmengine's `BaseDataset` and mmpretrain's `DataSample` keeps
    its attributes. The seed is the runner's (`randomness.seed`), which mmengine passes to the sampler, so that one setting
    seeds everything.

    `sample` is the number that the sampler drew. Inside wrappers such as `ConcatDataset` and `RepeatDataset`, the index
    counts in the wrapped data set, but `sample` stays the same: two members of a concatenation, or two repetitions of an
    image, share no random numbers. Addition, subtraction and remainder, with which wrappers compute the inner index, keep
    all three attributes; a wrapper that looks its index up in a list passes on `index.at(number)`.
    """

    epoch: int
    seed: int
    sample: int

    def __new__(cls, index: int, epoch: int = 0, seed: int = 0, sample: int | None = None) -> 'EpochIndex':
        self = super().__new__(cls, index)
        self.epoch, self.seed, self.sample = int(epoch), int(seed), int(index if sample is None else sample)
        return self

    def at(self, index: int) -> 'EpochIndex':
        """A copy with another index and the same epoch, seed and sample, for the data set inside a wrapper."""
        return EpochIndex(index, self.epoch, self.seed, self.sample)

    def __add__(self, other: Any) -> Any:
        # `len(dataset) + index` is how a number that counts from the end becomes one that counts from the start
        if self < 0 and self.sample == int(self):
            return _result(other, lambda n: EpochIndex(int(self) + n, self.epoch, self.seed))
        return _result(other, lambda n: self.at(int(self) + n))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return _result(other, lambda n: self.at(int(self) - n))

    def __rsub__(self, other: Any) -> Any:
        return _result(other, lambda n: self.at(n - int(self)))  # `len(dataset) - 1 - index`: in reverse

    def __mod__(self, other: Any) -> Any:
        return _result(other, lambda n: self.at(int(self) % n))

    def __divmod__(self, other: Any) -> Any:
        return _result(other, lambda n: (int(self) // n, self.at(int(self) % n)))

    def __getnewargs__(self) -> Any:
        return int(self), self.epoch, self.seed, self.sample

    def __repr__(self) -> str:
        sample = '' if self.sample == int(self) else f', sample={self.sample}'
        return f'EpochIndex({int(self)}, epoch={self.epoch}, seed={self.seed}{sample})'


def _result(other: Any, compute: Callable[[int], Any]) -> Any:
    """Apply `compute` to an integer of any type, numpy's included; for other types the index acts as a plain number."""
    try:
        number = as_integer(other)
    except TypeError:
        return NotImplemented
    return compute(number)
