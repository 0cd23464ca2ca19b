"""Read MMEngine's logs of a training run and join those of its resumed parts.

A work folder has one folder for each start of the run, named by its time, with `vis_data/scalars.json` and, written by
`RunInfoHook`, `run_info.json`. A resumed part counts from the step at which it was resumed; what an earlier part logged
after that step is discarded.

Shape legend: R logged training steps, P points of a metric.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from usp_mm.presets import nearest

#: Iterations that MMEngine's logged times are the mean of, unless run_info.json says otherwise.
WINDOW = 10
#: What is logged beside losses and metrics.
_NO_METRICS = ('iter', 'step', 'epoch', 'time', 'data_time', 'memory')


@dataclass(frozen=True)
class RunLog:
    """Times and metrics of a run by training step (iteration).

    Attributes:
        info: Content of the last part's run_info.json; empty if there is none.
        steps: Logged steps, int64[R].
        seconds: Seconds of training since step 0, without validation and sampling, float64[R].
        process_seconds: The same times the number of processes, float64[R].
        samples: Samples that all processes together have trained on, float64[R]; NaN if run_info.json is missing.
        metrics: {name: (int64[P] steps, float64[P] values)}.
    """

    folder: Path
    info: dict[str, Any]
    steps: np.ndarray
    seconds: np.ndarray
    process_seconds: np.ndarray
    samples: np.ndarray
    metrics: dict[str, tuple[np.ndarray, np.ndarray]]

    def metric(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric; a name that was not logged raises a ValueError with the nearest name."""
        if name not in self.metrics:
            known = sorted(self.metrics)
            raise ValueError(f"'{self.folder}' has no metric '{name}': it logged {known}{nearest(name, known)}")
        return self.metrics[name]

    def at(self, quantity: str, steps: Any) -> np.ndarray:
        """'seconds', 'process_seconds' or 'samples' at any steps: linear between the logged steps and beyond the last."""
        x, y = np.concatenate([[0], self.steps]), np.concatenate([[0.0], getattr(self, quantity)])
        rate = (y[-1] - y[-2]) / (x[-1] - x[-2])
        steps = np.asarray(steps, dtype=np.float64)
        return np.interp(steps, x, y) + rate * np.maximum(0, steps - x[-1])


def read_run(folder: str | Path) -> RunLog:
    """Read the log of a work folder.

    Raises:
        FileNotFoundError: The folder does not exist, or has no log of a training.
        ValueError: A log cannot be read, or metrics were logged by epochs of unknown length.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no work folder at '{folder}'")
    files = sorted(folder.glob('*/vis_data/scalars.json')) or sorted(folder.glob('vis_data/scalars.json'))
    infos = [_read_info(path.parents[1]) for path in files]
    for i in reversed(range(len(infos) - 1)):
        infos[i] = infos[i] or {key: value for key, value in infos[i + 1].items() if key != 'start_iter'}
    parts = [_Part(path, info) for path, info in zip(files, infos, strict=True)]
    parts = [part for part in parts if part.steps]
    if not parts:
        wanted = 'TIMESTAMP/vis_data/scalars.json with the times of iterations, as usp train writes it'
        raise FileNotFoundError(f"no training log in '{folder}': expected {wanted}")
    return _join(folder, *_lineage(parts))


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / 'run_info.json'
    return json.loads(path.read_text()) if path.is_file() else {}


@dataclass
class _Part:
    """One start of a run, with its training steps and their times, validations, and metrics by step."""

    path: Path
    info: dict[str, Any]
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    data_times: list[float] = field(default_factory=list)
    validations: list[int] = field(default_factory=list)
    metrics: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def __post_init__(self) -> None:
        for record in _records(self.path):
            if 'iter' in record and 'time' in record:
                self._add_training(record)
            step = self._step_of(record)
            for name, value in record.items():
                if name not in _NO_METRICS and isinstance(value, int | float) and math.isfinite(value):
                    self.metrics[name][step] = value

    def _add_training(self, record: dict[str, Any]) -> None:
        while self.steps and self.steps[-1] >= record['step']:  # a second start at the same timestamp
            for values in (self.steps, self.times, self.data_times):
                values.pop()
        self.steps.append(record['step'])
        self.times.append(record['time'])
        self.data_times.append(record.get('data_time', 0.0))

    def _step_of(self, record: dict[str, Any]) -> int:
        """The iteration of a record, whose metrics may be logged by epoch."""
        if 'iter' in record or 'time' not in record:
            return record['step']
        if self.info.get('iters_per_epoch'):
            return record['step'] * self.info['iters_per_epoch']  # where each epoch starts its own clock
        if self.steps and record['step'] < self.steps[-1]:
            raise ValueError(
                f"'{self.path}': metrics are logged at step {record['step']} after training step {self.steps[-1]}, so by "
                'epoch: train with the hook RunInfoHook, or in a loop over iterations with '
                'default_hooks.logger.log_metric_by_epoch=False'
            )
        self.validations.append(record['step'])
        return record['step']

    def start(self, interval: int) -> int:
        """The step at which this part began; `interval` is the usual distance between logged steps."""
        return self.info.get('start_iter', max(0, self.steps[0] - interval))

    def training_times(self, usual_wait: float) -> list[float]:
        """Seconds per iteration; a wait for data that includes the end of a validation counts as `usual_wait`."""
        waits = np.where(self.follow_validation(), np.maximum(0, np.array(self.data_times) - usual_wait), 0)
        return list(np.array(self.times) - waits)

    def follow_validation(self) -> np.ndarray:
        """bool[R]: whether a logged time includes the iteration after a validation, and so the computation of metrics."""
        steps, validations = np.array(self.steps)[:, None], np.array(self.validations, dtype=int)
        return ((steps - self.info.get('log_window', WINDOW) <= validations) & (validations < steps)).any(axis=1)


def _records(path: Path) -> list[dict[str, Any]]:
    lines, records = path.read_text().splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"'{path}' line {number} is not JSON ({error}): remove the line") from error
            MMLogger.get_current_instance().warning(f"'{path}': its last line was cut off and is left out")
    return records


def _lineage(parts: Sequence[_Part]) -> tuple[list[_Part], list[float]]:
    """The parts that led to the last one, and the step at which each ends.

    Each part was resumed from the latest earlier part that had reached its first step.
    """
    gaps = [gap for part in parts for gap in np.diff(part.steps)]
    interval = int(np.median(gaps)) if gaps else parts[0].steps[0]
    chain, ends = [parts[-1]], [math.inf]
    for part in reversed(parts[:-1]):
        start = chain[0].start(interval)
        if part.start(interval) < start < part.steps[-1] + interval:
            chain.insert(0, part)
            ends.insert(0, start)
    return chain, ends


def _join(folder: Path, parts: Sequence[_Part], ends: Sequence[float]) -> RunLog:
    clean = [wait for part in parts for wait in np.array(part.data_times)[~part.follow_validation()]]
    usual_wait = float(np.median(clean)) if clean else min(wait for part in parts for wait in part.data_times)
    rows: list[tuple[int, float, int, float]] = []
    metrics: dict[str, dict[int, float]] = defaultdict(dict)
    for part, end in zip(parts, ends, strict=True):
        world, batch = part.info.get('world_size', 1), part.info.get('batch_size') or math.nan
        timed = zip(part.steps, part.training_times(usual_wait), strict=True)
        rows += [(step, time, world, world * batch) for step, time in timed if step <= end]
        for name, values in part.metrics.items():
            metrics[name].update({step: value for step, value in values.items() if step <= end})
    if not all('world_size' in part.info for part in parts):
        MMLogger.get_current_instance().warning(f"'{folder}' has no run_info.json: its times are taken for one process's")
    steps, times, worlds, batches = (np.array(column) for column in zip(*rows, strict=True))
    taken = np.diff(steps, prepend=0)
    points = {name: sorted(values.items()) for name, values in metrics.items() if values}
    return RunLog(
        folder=folder,
        info=parts[-1].info,
        steps=steps,
        seconds=np.cumsum(taken * times),
        process_seconds=np.cumsum(taken * times * worlds),
        samples=np.cumsum(taken * batches),
        metrics={name: (np.array([s for s, _ in pairs]), np.array([v for _, v in pairs])) for name, pairs in points.items()},
    )
