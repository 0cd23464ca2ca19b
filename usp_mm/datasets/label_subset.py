"""Choose which few samples of each class have a label, for training with few labels."""

from collections.abc import Sequence

import numpy as np
import torch

from usp_mm.functional.random import uniform


def label_subset(labels: np.ndarray, per_class: int, seed: int, classes: Sequence[str] | None, where: str) -> np.ndarray:
    """Choose `per_class` samples of each class.

    Each sample has a number that is a function of (seed, its row), and a class keeps the samples with the lowest ones. So the
    choice is the same in every process, and that of N samples a class is part of that of more.

    Args:
        labels: int64[N], class of every sample of the whole data set.
        per_class: Number of samples that each class keeps.
        seed: An integer from 0 to 2^56 - 1; another one chooses other samples.
        classes: Names of the classes, in the order of the labels; None for a data set without classes.
        where: The data set for the message, such as "latent cache 'a'".

    Returns:
        int64[per_class · classes], the rows of the samples in ascending order.

    Raises:
        ValueError: The data set has no classes, a class has fewer samples, or a number is out of range.
    """
    if per_class < 1:
        raise ValueError(f'labels_per_class={per_class} must be 1 or more, or None for every label')
    if not 0 <= seed < 2**56:
        raise ValueError(f'labels_seed={seed} must be from 0 to 2^56 - 1')
    if not classes:
        raise ValueError(f'{where} has no classes, of which labels_per_class={per_class} could choose: use a labelled data set')
    counts = np.bincount(labels, minlength=len(classes))
    if (least := int(counts.min())) < per_class:
        found = f'{least} samples, fewer than labels_per_class={per_class}: ask for {least} or fewer'
        none = f'no sample, so labels_per_class={per_class} is not there: leave the class out, or label samples of it'
        raise ValueError(f"class '{classes[int(counts.argmin())]}' of {where} has {found if least else none}")
    rows = torch.arange(len(labels))
    draws = uniform(rows, torch.zeros_like(rows), 1, seed=seed, stream='label_subset')[:, 0].numpy()
    order = np.lexsort((draws, labels))  # by class, then by draw, then by row: the sort is stable
    starts = np.cumsum(counts) - counts
    return np.sort(order[(starts[:, None] + np.arange(per_class)).ravel()])
