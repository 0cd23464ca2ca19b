"""Collection of features by sample number over all processes, so that each sample counts exactly once."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather_object, gather, get_comm_device, get_rank, is_distributed, is_main_process
from torch import Tensor


class NumberedFeatures:
    """Rows of float32 features with the numbers of their samples, kept on the CPU of the process that computed them."""

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        return len(self._numbers)

    def clear(self) -> None:
        self._numbers: list[int] = []
        self._parts: list[dict[str, Tensor]] = []

    def add(self, numbers: Sequence[int], features: dict[str, Tensor]) -> None:
        """Add one row per sample. Repeated numbers are allowed; `collect` removes duplicates."""
        self._numbers += [int(number) for number in numbers]
        self._parts.append({key: value.detach().float().cpu() for key, value in features.items()})

    def collect(self, expected: int | None, what: str) -> dict[str, Tensor]:
        """Features [N, D] of all processes, sorted by sample number, on the main process; {} on the others.

        Must be called on every process. If several processes have a sample, as with a padded sampler, the first one counts.

        Args:
            expected: Expected number N of distinct samples, checked on every process; None skips the check.
            what: Name of the samples in errors.

        Raises:
            ValueError: The number of distinct samples differs from `expected`, or is 0.
        """
        everyones = all_gather_object(self._numbers)
        distinct = {number for numbers in everyones for number in numbers}
        if expected is not None and len(distinct) != expected:
            raise ValueError(
                f'{what}: got {len(distinct)} distinct samples, expected {expected}: every number (sample_idx) '
                'from the data set must arrive once, on some process'
            )
        if not distinct:
            raise ValueError(f'{what}: got no samples')
        taken, rows = {number for numbers in everyones[: get_rank()] for number in numbers}, []
        for row, number in enumerate(self._numbers):
            if number not in taken:
                taken.add(number)
                rows.append(row)
        numbers = _gather_rows(torch.tensor([self._numbers[row] for row in rows], dtype=torch.int64)[:, None])
        order = numbers.flatten().argsort()
        shapes = next(shape for shape in all_gather_object(self._shapes()) if shape)
        collected = {}
        for key, size in shapes.items():
            own = torch.cat([part[key] for part in self._parts])[rows] if self._parts else torch.zeros(0, size)
            everything = _gather_rows(own)
            if is_main_process():
                collected[key] = everything[order]
        return collected

    def _shapes(self) -> dict[str, int]:
        return {key: value.shape[1] for key, value in self._parts[0].items()} if self._parts else {}


def _gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows [n, D] of all processes on the main process; empty on the others."""
    if not is_distributed():
        return rows
    counts = all_gather_object(len(rows))
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: len(rows)] = rows
    parts = gather(padded.to(get_comm_device()))
    return torch.cat([part[:count].cpu() for part, count in zip(parts, counts, strict=False)]) if parts else rows[:0]
