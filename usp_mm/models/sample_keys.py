"""Which sample each row of a batch is, for addressable noise."""

import functools
from collections.abc import Sequence

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.datasets import EpochIndex


def sample_keys(data_samples: Sequence | None, num: int, device: torch.device, training: bool) -> tuple[Tensor, Tensor, int]:
    """(int64[num] sample numbers, int64[num] epochs, seed) of a batch.

    They come from each data sample's `sample_idx`, an `EpochIndex` where the sampler is `EpochSampler`.
    Where it is not, training warns and takes fresh numbers from torch's generator, so that a sample's
    draws differ from step to step; evaluation takes the plain index, so that they do not.
    """
    indices = [sample.get('sample_idx') for sample in data_samples or ()]
    if indices and all(isinstance(index, EpochIndex) for index in indices):
        epochs = torch.tensor([index.epoch for index in indices], device=device)
        return torch.tensor([index.sample for index in indices], device=device), epochs, indices[0].seed
    if training:
        _warn_of_plain_indices()
        samples = torch.randint(2**62, (num,)).to(device)
    elif indices and None not in indices:
        samples = torch.tensor([int(index) for index in indices], device=device)
    else:
        samples = torch.arange(num, device=device)
    return samples, torch.zeros_like(samples), 0


@functools.cache
def _warn_of_plain_indices() -> None:
    """Once in a process."""
    MMLogger.get_current_instance().warning(
        "masks, noise and posterior samples of training come from torch's generator, not from (seed, epoch, sample), since the "
        "data samples' sample_idx is no EpochIndex: they depend on batch size and processes. Use "
        "train_dataloader.sampler.type='EpochSampler' (or 'EpochInfiniteSampler'), and a data set that keeps the index that it "
        "is given as sample_idx, as MMEngine's BaseDataset does"
    )
