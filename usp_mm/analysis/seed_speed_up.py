"""How many times fewer steps an arm needs than another one, with a confidence interval over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from .convergence import Curve, curve, reach
from .run_log import RunLog


@dataclass(frozen=True)
class SeedSpeedUp:
    """How soon the runs of an arm reach the last value of the other arm's run with the same seed.

    For each seed, the ratio is the last step of the other run divided by the step at which this arm's run first is as good as
    the other run is there (linear between its points). The mean is geometric, and the interval is Student's, of the logarithms
    of the ratios: exp(m ± t·s/√n), where m and s are their mean and standard deviation over n seeds, and t is the quantile of
    Student's distribution with n - 1 degrees of freedom. It supposes that these logarithms are normal, and speaks of seeds
    alone: not of other data or settings.

    Attributes:
        label, other: Names of the arms.
        pairs: What the runs were paired by: 'seed', as run_info.json has it, or 'order', the order in which they were given.
        steps: The other run's last step, for each pair.
        values: Its value there, for each pair.
        reached: The step at which this arm's run reaches that value, for each pair; None if it does not.
        at_first: For each pair, whether it is reached at the first point, so that the ratio is a lower bound.
        confidence: Probability that the interval is made for.
    """

    label: str
    other: str
    pairs: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    reached: tuple[float | None, ...]
    at_first: tuple[bool, ...]
    confidence: float

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """Steps of the other run per step of this arm's, for each pair; None where it is not reached."""
        return tuple(None if own is None else step / own for step, own in zip(self.steps, self.reached, strict=True))

    @property
    def ratio(self) -> float | None:
        """Geometric mean of the ratios; None if a run does not reach its value."""
        logs = self._logs()
        return None if logs is None else math.exp(logs.mean())

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the confidence interval; None for a single pair, or if a run does not reach its value."""
        logs = self._logs()
        if logs is None or len(logs) < 2:
            return None
        half = float(student.ppf((1 + self.confidence) / 2, len(logs) - 1)) * logs.std(ddof=1) / math.sqrt(len(logs))
        return math.exp(logs.mean() - half), math.exp(logs.mean() + half)

    def _logs(self) -> np.ndarray | None:
        found = [ratio for ratio in self.ratios if ratio is not None]
        return np.log(found) if len(found) == len(self.steps) else None


def seed_speed_up(
    arm: tuple[str, Sequence[RunLog]],
    other: tuple[str, Sequence[RunLog]],
    metric: str,
    lower: bool,
    confidence: float = 0.95,
) -> SeedSpeedUp:
    """Compare two arms seed by seed.

    Args:
        arm, other: Label and runs of each arm.
        metric: Name of the metric, as logged.
        lower: Whether lower values are better.
        confidence: Probability of the interval, in (0, 1).

    Raises:
        ValueError: The arms can't be paired, a run does not have the metric, or `confidence` is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f'confidence={confidence} must lie between 0 and 1')
    pairs, paired = pair_runs(arm, other)
    curves = [(curve(arm[0], [own], metric), curve(other[0], [theirs], metric)) for own, theirs in paired]
    targets = [float(theirs.values[-1]) for _, theirs in curves]
    reached = [reach(own, target, lower) for (own, _), target in zip(curves, targets, strict=True)]
    return SeedSpeedUp(
        label=arm[0],
        other=other[0],
        pairs=pairs,
        steps=tuple(int(theirs.steps[-1]) for _, theirs in curves),
        values=tuple(targets),
        reached=tuple(reached),
        at_first=tuple(_at_first(own, step) for (own, _), step in zip(curves, reached, strict=True)),
        confidence=confidence,
    )


def pair_runs(
    arm: tuple[str, Sequence[RunLog]], other: tuple[str, Sequence[RunLog]]
) -> tuple[str, list[tuple[RunLog, RunLog]]]:
    """Pair the runs of two arms by the seed in their run_info.json, or by their order if none of them has one.

    Returns:
        'seed' or 'order', and the pairs.

    Raises:
        ValueError: The arms have other seeds, or a seed twice; some runs have a seed and others none; or without seeds, the
            arms have different numbers of runs.
    """
    seeds = [[run.info.get('seed') for run in runs] for _, runs in (arm, other)]
    labels = f"'{arm[0]}' and '{other[0]}'"
    if all(seed is None for part in seeds for seed in part):
        if len(arm[1]) != len(other[1]):
            raise ValueError(f'{labels} have {len(arm[1])} and {len(other[1])} runs without a recorded seed: give equally many')
        return 'order', list(zip(arm[1], other[1], strict=True))
    if any(seed is None or part.count(seed) > 1 for part in seeds for seed in part) or set(seeds[0]) != set(seeds[1]):
        raise ValueError(f'the runs of {labels} have seeds {seeds[0]} and {seeds[1]}: give one run of each seed in both')
    by_seed = dict(zip(seeds[1], other[1], strict=True))
    return 'seed', [(run, by_seed[seed]) for run, seed in zip(arm[1], seeds[0], strict=True)]


def _at_first(own: Curve, step: float | None) -> bool:
    return step is not None and math.isclose(step, own.steps[0])
