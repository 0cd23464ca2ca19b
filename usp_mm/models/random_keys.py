"""Identity and class of each sample in a batch, from which its random numbers are derived."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.datasets import EpochIndex
from usp_mm.functional import random


@dataclass(frozen=True)
class SampleKeys:
    """What the random numbers of a batch depend on.

    Attributes:
        sample, epoch: Number of the sample and epoch, int64[N] each, on the model's device.
        seed: Seed of the whole batch.
    """

    sample: Tensor
    epoch: Tensor
    seed: int

    def uniform(self, num: int, stream: str) -> Tensor:
        """`usp_mm.functional.random.uniform` of these samples: float32[N, num]."""
        return random.uniform(self.sample, self.epoch, num, seed=self.seed, stream=stream)

    def normal(self, shape: tuple[int, ...], stream: str) -> Tensor:
        """`usp_mm.functional.random.normal` of these samples: float32[N, *shape]."""
        return random.normal(self.sample, self.epoch, shape, seed=self.seed, stream=stream)


def sample_keys(data_samples: Sequence | None, num: int, device: torch.device, training: bool) -> SampleKeys:
    """The keys of a batch of `num` samples, in one copy to the device.

    They come from each data sample's `sample_idx`, which is an `EpochIndex` if the sampler is `EpochSampler`. With plain
    indices, training warns and takes fresh numbers from torch's generator, so that a sample's random numbers differ from step
    to step; evaluation uses the plain index, so that they stay the same.

    Raises:
        ValueError: Samples of one batch carry different seeds.
    """
    indices = [sample.get('sample_idx') for sample in data_samples or ()]
    if indices and all(isinstance(index, EpochIndex) for index in indices):
        numbers = torch.tensor([[index.sample for index in indices], [index.epoch for index in indices]])
        sample, epoch = to_device(numbers, device)
        return SampleKeys(sample, epoch, _seed_of(indices))
    if training:
        _warn_of_plain_indices()
        samples = torch.randint(2**62, (num,))
    elif indices and None not in indices:
        samples = torch.tensor([int(index) for index in indices])
    else:
        samples = torch.arange(num)
    sample, epoch = to_device(torch.stack([samples, torch.zeros_like(samples)]), device)
    return SampleKeys(sample, epoch, 0)


def labels_of(data_samples: Sequence | None, device: torch.device) -> Tensor | None:
    """The classes of a batch, int64[N], in one copy to the device; None if a sample has none."""
    if not data_samples or any('gt_label' not in sample for sample in data_samples):
        return None
    return to_device(torch.cat([sample.gt_label for sample in data_samples]), device)


def to_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Copy to a device, for a GPU asynchronously from pinned memory, so that its queue of work does not run empty."""
    if device.type == 'cuda' and numbers.device.type == 'cpu':
        return numbers.pin_memory().to(device, non_blocking=True)
    return numbers.to(device)


def _seed_of(indices: Sequence[EpochIndex]) -> int:
    seeds = sorted({index.seed for index in indices})
    if len(seeds) > 1:
        raise ValueError(
            f'the samples of a batch carry {len(seeds)} seeds, {seeds[0]} and {seeds[1]} among them; their noise takes one: '
            'draw each batch with one sampler'
        )
    return seeds[0]


@functools.cache
def _warn_of_plain_indices() -> None:
    """Log the warning, once per process."""
    MMLogger.get_current_instance().warning(
        "masks, noise and posterior samples of training come from torch's generator, not from (seed, epoch, sample), since the "
        "data samples' sample_idx is no EpochIndex: they depend on batch size and processes. Use "
        "train_dataloader.sampler.type='EpochSampler' (or 'EpochInfiniteSampler'), and a data set that keeps the index that it "
        "is given as sample_idx, as MMEngine's BaseDataset does"
    )
