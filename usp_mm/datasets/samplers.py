"""Data order that depends on the seed and the epoch alone."""

import math
from collections.abc import Iterator

import torch
from mmengine.dataset import DefaultSampler

from usp_mm.registry import DATA_SAMPLERS

from .epoch_index import EpochIndex
from .seeding import derive_seed


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """MMEngine's `DefaultSampler` (same arguments) that yields `EpochIndex`.

    The order is a function of (seed, epoch), and rank r of W takes every W-th index from r on. So
    batch k of one process at batch size W·B holds the same samples as batch k of W processes at B.
    """

    def __iter__(self) -> Iterator[EpochIndex]:
        num = len(self.dataset)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
            order = torch.randperm(num, generator=generator)
        else:
            order = torch.arange(num)
        order = order.repeat(math.ceil(self.total_size / num))[: self.total_size]
        for index in order[self.rank :: self.world_size].tolist():
            yield EpochIndex(index, self.epoch, self.seed)
