"""Which sample each row of a batch is, for addressable noise."""

from collections.abc import Sequence

import torch
from mmengine.dist import get_rank
from torch import Tensor


def sample_keys(
    data_samples: Sequence | None, num: int, device: torch.device, default_seed: int = 0
) -> tuple[Tensor, Tensor, int]:
    """(int64[num] sample numbers, int64[num] epochs, seed) of a batch.

    They come from each data sample's `sample_idx`, an `EpochIndex` where the sampler is this
    package's. Inputs without data samples are numbered by their place in the batch and the rank.
    """
    if not data_samples or 'sample_idx' not in data_samples[0]:
        samples = torch.arange(num, device=device) + get_rank() * num
        return samples, torch.zeros_like(samples), default_seed
    indices = [sample.sample_idx for sample in data_samples]
    samples = torch.tensor([int(index) for index in indices], device=device)
    epochs = torch.tensor([getattr(index, 'epoch', 0) for index in indices], device=device)
    return samples, epochs, getattr(indices[0], 'seed', default_seed)
