"""A data set of sample numbers and classes that names what a generator generates for an evaluation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from usp_mm.functional.random import uniform
from usp_mm.registry import DATASETS

LABEL_MODES = ('random', 'balanced')


def random_labels(index: Tensor, num_classes: int, seed: int) -> Tensor:
    """Draw a class uniformly for each sample number, as a function of only (seed, number): int64[N] -> int64[N]."""
    draws = uniform(index, torch.zeros_like(index), 1, seed=seed, stream='label')[:, 0]
    return (draws.double() * num_classes).long()


@DATASETS.register_module()
class SampleRequests(Dataset):
    """A data set whose item i requests sample i from a generator: dict(inputs=dict(index=i, label=…, seed=…)).

    Args:
        num_samples: Number of samples.
        num_classes: Number of classes; labels are 0 … num_classes - 1.
        label_mode: 'random' draws the class of sample i only from (seed, i), as for the paper's 50,000 samples; 'balanced'
            takes i mod num_classes.
        seed: Seed of the classes and of the samples' noise.
        labels: Class of each sample; replaces `label_mode`.
        classes: Names of the classes, for `metainfo`.

    Raises:
        ValueError: A number is below 1, the mode is unknown, or `labels` does not hold `num_samples` classes.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        label_mode: str = 'random',
        seed: int = 0,
        labels: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        if num_samples < 1 or num_classes < 1:
            raise ValueError(f'num_samples={num_samples} and num_classes={num_classes} must be at least 1')
        if label_mode not in LABEL_MODES:
            raise ValueError(f"label_mode='{label_mode}' must be one of {LABEL_MODES}")
        index = torch.arange(num_samples)
        if labels is not None:
            self.labels, label_mode = torch.as_tensor(labels, dtype=torch.int64), 'given'
            if self.labels.shape != (num_samples,) or not ((self.labels >= 0) & (self.labels < num_classes)).all():
                raise ValueError(f'labels={list(labels)[:8]} must be {num_samples} classes from 0 to {num_classes - 1}')
        elif label_mode == 'balanced':
            self.labels = index % num_classes
        else:
            self.labels = random_labels(index, num_classes, seed)
        self.seed = seed
        self.metainfo: dict[str, Any] = dict(
            label_mode=label_mode, seed=seed, num_samples=num_samples, num_classes=num_classes, classes=classes
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, dict[str, int]]:
        if not 0 <= index < len(self):
            raise IndexError(f'request {index} is out of range for {len(self)} samples')
        return dict(inputs=dict(index=int(index), label=int(self.labels[index]), seed=self.seed))
