"""Compare how fast runs converge (USP, arXiv 2503.06132, Figure 3).

Shape legend: P points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, EngFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from mmengine.logging import MMLogger

from usp_mm.fileio.atomic import write_whole

from .run_log import RunLog

#: Of the names of metrics, without the part before '/': whether lower is better.
DIRECTIONS = {
    **dict.fromkeys(('FID', 'sFID', 'FD', 'loss', 'denoising_loss'), True),
    **dict.fromkeys(('IS', 'precision', 'recall', 'density', 'coverage', 'vendi', 'top1', 'top5', 'mIoU'), False),
}
#: Metrics from 0 to 100.
PERCENTAGES = ('top1', 'top5', 'mIoU', 'aAcc', 'mAcc')


@dataclass(frozen=True)
class Curve:
    """A metric of one arm, which is one run or the mean over several that differ in their seed.

    Attributes:
        steps: Training steps, int64[P], increasing.
        values: Values of the metric, float64[P].
        deviation: Unbiased standard deviation over the runs, float64[P]; 0 for a single run.
        hours: Hours of training times processes, float64[P].
        runs: Number of runs.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    deviation: np.ndarray
    hours: np.ndarray
    runs: int

    def best(self, lower: bool) -> int:
        """Index of the first best value."""
        return int(np.argmin(self.values) if lower else np.argmax(self.values))

    def hours_at(self, step: float) -> float:
        """Hours at a step between 0 and the last one."""
        return float(np.interp(step, [0, *self.steps], [0.0, *self.hours]))


@dataclass(frozen=True)
class SpeedUp:
    """How soon an arm reaches another arm's best value.

    Attributes:
        value, other_step, other_hours: The other arm's best value, and where it is reached.
        step, hours: Where this arm first reaches the value, with linear interpolation between its points; None if it never
            does.
        at_first: Whether this arm is better from its first point on. `step` is then that point, and so an upper bound.
    """

    label: str
    other: str
    value: float
    other_step: int
    other_hours: float
    step: float | None
    hours: float | None
    at_first: bool

    @property
    def ratio(self) -> float | None:
        """Steps of the other arm per step of this arm."""
        return None if self.step is None else self.other_step / self.step

    @property
    def hours_ratio(self) -> float | None:
        """Hours of the other arm per hour of this arm."""
        return None if self.hours is None else self.other_hours / self.hours


def lower_is_better(metric: str) -> bool:
    """Whether lower values of a metric are better, by its name; ValueError for an unknown metric."""
    name = metric.rsplit('/', 1)[-1]
    if name not in DIRECTIONS:
        raise ValueError(f"is a low '{metric}' good? say --lower-is-better or --higher-is-better")
    return DIRECTIONS[name]


def curve(label: str, runs: Sequence[RunLog], metric: str) -> Curve:
    """The mean over an arm's runs, at the steps that all of them have.

    Raises:
        ValueError: A run does not have the metric, or the runs have no step in common.
    """
    points = [dict(zip(*(column.tolist() for column in run.metric(metric)), strict=True)) for run in runs]
    steps = sorted(set(points[0]).intersection(*points[1:]))
    if not steps:
        raise ValueError(f"the runs of '{label}' have '{metric}' at no common step: give runs with the same val_interval")
    for run, own in zip(runs, points, strict=True):
        if len(own) > len(steps):
            left = len(own) - len(steps)
            MMLogger.get_current_instance().warning(f"'{run.folder}': {left} points of '{label}' that other runs of it lack")
    values = np.array([[own[step] for step in steps] for own in points])
    hours = np.array([run.at('process_seconds', steps) for run in runs]) / 3600
    deviation = values.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(len(steps))
    return Curve(label, np.array(steps), values.mean(axis=0), deviation, hours.mean(axis=0), len(runs))


def reach(arm: Curve, value: float, lower: bool) -> float | None:
    """First step at which an arm, interpolated linearly, is as good as `value`; None if it never is."""
    gap = (arm.values - value) * (1 if lower else -1)  # above 0: not reached
    reached = np.flatnonzero(gap <= 0)
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0:
        return float(arm.steps[0])
    share = gap[i - 1] / (gap[i - 1] - gap[i])
    return float(arm.steps[i - 1] + share * (arm.steps[i] - arm.steps[i - 1]))


def speed_up(arm: Curve, other: Curve, lower: bool) -> SpeedUp:
    """Compare the steps and hours that `arm` needs to reach the best value of `other`."""
    best = other.best(lower)
    value = float(other.values[best])
    step = reach(arm, value, lower)
    return SpeedUp(
        label=arm.label,
        other=other.label,
        value=value,
        other_step=int(other.steps[best]),
        other_hours=float(other.hours[best]),
        step=step,
        hours=None if step is None else arm.hours_at(step),
        at_first=step is not None and math.isclose(step, arm.steps[0]),
    )


def draw_convergence(
    curves: Sequence[Curve], metric: str, out: str | Path, hours: str | None = 'GPU-hours', log: bool = False
) -> None:
    """Draw the curves against steps and, unless `hours` is None, against hours; `hours` is the label of that axis.

    A band shows one standard deviation above and below; `log` draws the metric on a logarithmic axis. The suffix of `out`
    determines the file format.

    Raises:
        ValueError: matplotlib cannot write this suffix.
    """
    out = Path(out)
    figure = Figure(figsize=(6.4 * (1 if hours is None else 2), 4.8), layout='constrained')
    panels: list[tuple[str, str]] = [('steps', 'training iterations')] + ([] if hours is None else [('hours', hours)])
    for i, (axis, name) in enumerate(panels, start=1):
        panel: Any = figure.add_subplot(1, len(panels), i)
        for one in curves:
            x, label = getattr(one, axis), one.label + (f' (mean of {one.runs})' if one.runs > 1 else '')
            (line,) = panel.plot(x, one.values, marker='.', label=label)
            if one.runs > 1:
                low, high = one.values - one.deviation, one.values + one.deviation
                panel.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        panel.set(xlabel=name, ylabel=metric, xlim=(0, None))
        if axis == 'steps':
            panel.xaxis.set_major_formatter(EngFormatter(sep=''))  # 400k
        if log:
            _draw_logarithmic(panel)
        else:
            readable_ticks(panel, metric)
        panel.grid(alpha=0.3, which='both')
        panel.legend()
    suffix = out.suffix.lstrip('.').lower()
    known = sorted(figure.canvas.get_supported_filetypes())
    if suffix not in known:
        raise ValueError(f"cannot draw '{out}': its suffix must be one of {known}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as file:
        figure.savefig(file, format=suffix, dpi=150)


def readable_ticks(panel: Any, metric: str) -> None:
    """Give the y-axis plain numbers (not 1e-5 + 99.99), and end that of a percentage at 0 and 100, which no value exceeds."""
    panel.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    if metric.rsplit('/', 1)[-1] not in PERCENTAGES:
        return
    low, high = panel.get_ylim()
    room = 0.02 * (high - low)  # so that a line at the end is seen whole
    panel.set_ylim(max(low, -room), min(high, 100 + room))
    panel.yaxis.set_major_locator(MaxNLocator('auto', steps=[1, 2, 5, 10]))


def _draw_logarithmic(panel: Any) -> None:
    """A logarithmic y-axis whose ticks are plain numbers, some of them within any range."""
    panel.set_yscale('log')
    low, high = panel.get_ylim()
    panel.yaxis.set_major_locator(AutoLocator() if high < 10 * low else LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter('{x:g}')
    panel.yaxis.set_minor_locator(NullLocator())
