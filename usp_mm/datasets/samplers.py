"""Samplers whose order depends only on the seed and the epoch."""

import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler

from usp_mm.registry import DATA_SAMPLERS

from .dataset_wrappers import check_wrappers
from .epoch_index import EpochIndex
from .seeding import derive_seed


class _StartsAnywhere:
    """Mixin of samplers that can start within an epoch, on data sets that pass on an `EpochIndex`."""

    start = 0

    def __init__(self, dataset: Sized, *args: Any, **kwargs: Any) -> None:
        super().__init__(dataset, *args, **kwargs)  # type: ignore[call-arg]
        check_wrappers(dataset)

    def seek(self, num_samples: int) -> None:
        """Let only the next iteration skip the first `num_samples` samples of this process."""
        self.start = num_samples


@DATA_SAMPLERS.register_module()
class EpochSampler(_StartsAnywhere, DefaultSampler):
    """MMEngine's `DefaultSampler` (same arguments) that yields `EpochIndex`.

    The order is a function of (seed, epoch), and rank r of W takes every W-th index, starting with r. Therefore
    batch k of one process at batch size W·B holds the same samples as batch k of W processes at batch size B.

    Raises:
        ValueError: A wrapper passes a plain number to its data set instead of the `EpochIndex`.
    """

    def __iter__(self) -> Iterator[EpochIndex]:
        num = len(self.dataset)
        order = _order(num, self.seed, self.epoch, self.shuffle)
        order = order.repeat(math.ceil(self.total_size / num))[: self.total_size]
        start, self.start = self.start, 0
        for index in order[self.rank :: self.world_size].tolist()[start:]:
            yield EpochIndex(index, self.epoch, self.seed)


@DATA_SAMPLERS.register_module()
class EpochInfiniteSampler(_StartsAnywhere, InfiniteSampler):
    """MMEngine's `InfiniteSampler` (same arguments) that yields `EpochIndex` and can start anywhere.

    The orders of the epochs follow each other without end, and rank r of W takes every W-th index, starting with r.

    Raises:
        ValueError: As in `EpochSampler`.
    """

    def __iter__(self) -> Iterator[EpochIndex]:
        position = self.rank + self.start * self.world_size
        while True:
            epoch, place = divmod(position, self.size)
            indices = _order(self.size, self.seed, epoch, self.shuffle)[place :: self.world_size].tolist()
            for index in indices:
                yield EpochIndex(index, epoch, self.seed)
            position += len(indices) * self.world_size


def _order(num: int, seed: int, epoch: int, shuffle: bool) -> torch.Tensor:
    """The indices of an epoch in their order, int64[num]."""
    if not shuffle:
        return torch.arange(num)
    return torch.randperm(num, generator=torch.Generator().manual_seed(derive_seed(seed, epoch)))
