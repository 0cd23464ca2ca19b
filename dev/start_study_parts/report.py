"""The tables and curves of dev/start_study.py, from its records."""

import math
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

from usp_mm.analysis.run_log import RunLog
from usp_mm.analysis.seed_speed_up import SeedSpeedUp, seed_speed_up
from usp_mm.fileio.atomic import write_whole

from .arms import ARMS, BASELINE, FAMILIES, SEEDS, SIZES

NOT_RUN = 'not run'
BEGIN, END = '<!-- begin: dev/start_study.py -->', '<!-- end: dev/start_study.py -->'
Runs = dict[int, dict[str, Any]]
METRIC = 'denoising_loss'


def runs_of(records: Sequence[dict[str, Any]], family: str, size: str, arm: str) -> Runs:
    """The records of an arm by seed."""
    found = [run for run in records if (run['family'], run['size'], run['arm']) == (family, size, arm)]
    return {run['seed']: run for run in sorted(found, key=lambda run: run['seed'])}


def as_log(run: dict[str, Any], axis: str) -> RunLog:
    """A record as a log whose axis counts 'steps', or microseconds ('time') at the run's own seconds per step."""
    unit = 1 if axis == 'steps' else run['seconds_per_step'] * 1e6
    at = np.array([round(step * unit) for step in run['at']])
    seconds = np.array(run['at']) * run['seconds_per_step']
    info = dict(seed=run['seed'])
    metrics = {METRIC: (at, np.array(run['losses']))}
    return RunLog(Path(), info, at, seconds, seconds, np.array(run['at']) * run['batch_size'], metrics)


def speed_up(own: Runs, other: Runs, axis: str) -> SeedSpeedUp:
    """How many times sooner an arm reaches the other's last loss, over the seeds that both have."""
    seeds = sorted(set(own) & set(other))
    arms = [('arm', [as_log(own[seed], axis) for seed in seeds]), ('other', [as_log(other[seed], axis) for seed in seeds])]
    return seed_speed_up(*arms, METRIC, lower=True)


def speed_up_cell(own: Runs, other: Runs, axis: str) -> str:
    """'1.20 [1.05, 1.37]'; where a seed does not reach the loss, in how many it does."""
    if not set(own) & set(other):
        return NOT_RUN
    found = speed_up(own, other, axis)
    if found.ratio is None:
        reached = sum(step is not None for step in found.reached)
        return f'not reached ({reached} of {len(found.reached)} seeds do)'
    lower = '≥ ' if any(found.at_first) else ''
    if found.interval is None:
        return f'{lower}{found.ratio:.2f} (1 seed)'
    few = '' if len(found.steps) == SEEDS else f' ({len(found.steps)} seeds)'
    return f'{lower}{found.ratio:.2f} [{found.interval[0]:.2f}, {found.interval[1]:.2f}]{few}'


def difference_cell(own: Runs, other: Runs, axis: str = 'steps') -> str:
    """Difference of the losses in per cent of the other's, with the 95 % interval over paired seeds.

    With axis 'steps' they are the last losses; with 'time' those at the time at which the first of the two runs ends, linear
    between evaluations.
    """
    found = []
    for seed in sorted(set(own) & set(other)):
        logs = [as_log(runs[seed], axis) for runs in (own, other)]
        end = min(int(log.steps[-1]) for log in logs)
        mine, theirs = (float(np.interp(end, *log.metric(METRIC))) for log in logs)
        found.append(100 * (mine / theirs - 1))
    if not found:
        return NOT_RUN
    mean = statistics.mean(found)
    if len(found) == 1:
        return f'{mean:+.2f} % (1 seed)'
    half = float(student.ppf(0.975, len(found) - 1)) * statistics.stdev(found) / math.sqrt(len(found))
    few = '' if len(found) == SEEDS else f' ({len(found)} seeds)'
    return f'{mean:+.2f} % [{mean - half:+.2f}, {mean + half:+.2f}]{few}'


def mean_cell(values: Sequence[float], digits: int) -> str:
    """'mean ± standard deviation'; of one seed only its value, marked."""
    if not values:
        return NOT_RUN
    text = f'{statistics.mean(values):.{digits}f}'
    if len(values) == 1:
        return f'{text} (1 seed)'
    return f'{text} ± {statistics.stdev(values):.{digits}f}' + ('' if len(values) == SEEDS else f' ({len(values)} seeds)')


def comparison(records: Sequence[dict[str, Any]], family: str, size: str) -> str:
    """Each arm against scratch, as a Markdown table."""
    lines = [
        '| arm | seeds | seconds a step | last loss | difference, equal steps | difference, equal time | speed-up, steps | '
        'speed-up, time | FD of samples |',
        '|---' * 9 + '|',
    ]
    base = runs_of(records, family, size, BASELINE)
    for arm in ARMS:
        own = runs_of(records, family, size, arm)
        cells = [', '.join(map(str, own)) or NOT_RUN]
        cells.append(mean_cell([run['seconds_per_step'] for run in own.values()], 3))
        cells.append(mean_cell([run['losses'][-1] for run in own.values()], 4))
        if arm == BASELINE:
            cells += ['–'] * 4
        else:
            cells += [cell(own, base, axis) for cell in (difference_cell, speed_up_cell) for axis in ('steps', 'time')]
        cells.append(mean_cell([run['fd'] for run in own.values() if 'fd' in run], 2))
        lines.append(f'| {arm} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def by_step(records: Sequence[dict[str, Any]], family: str, size: str) -> str:
    """Mean losses at each evaluation, as a Markdown table of the arms that were run."""
    arms = {arm: own for arm in ARMS if (own := runs_of(records, family, size, arm))}
    at = next(iter(next(iter(arms.values())).values()))['at']
    lines = [f'| steps | {" | ".join(f"{step:,}" for step in at)} |', '|---' * (1 + len(at)) + '|']
    for arm, own in arms.items():
        means = [statistics.mean(run['losses'][i] for run in own.values()) for i in range(len(at))]
        lines.append(f'| {arm} | {" | ".join(f"{mean:.4f}" for mean in means)} |')
    return '\n'.join(lines)


def shown(records: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Families and sizes of which something was run."""
    return [key for key in product(FAMILIES, SIZES) if any((run['family'], run['size']) == key for run in records)]


def tables(records: Sequence[dict[str, Any]], stem: str = 'usp-start') -> str:
    """Everything that was run, as Markdown."""
    parts = []
    for family, size in shown(records):
        runs = [run for run in records if (run['family'], run['size']) == (family, size)]
        facts = ', '.join(sorted({f'{run["processor"]}, {run["threads"]} thread(s), {run["clock"]} time' for run in runs}))
        commits = ', '.join(sorted({run['commit'] for run in runs}))
        steps, batch = runs[0]['steps'], runs[0]['batch_size']
        parts.append(
            f'**{family.upper()[0]}i{family.upper()[-1]} {size}**, {steps:,} steps of batch {batch}; {facts}; {commits}:'
        )
        parts += [comparison(records, family, size), 'Mean loss by steps:', by_step(records, family, size)]
        parts.append(f'![{family} {size}]({stem}-{family}-{size}.png)')
    missing = [title(*key) for key in product(FAMILIES, SIZES) if key not in shown(records) and key[1] != 'toy']
    if missing:
        parts.append(f'Not run: {", ".join(missing)}.')
    return '\n\n'.join(parts)


def title(family: str, size: str) -> str:
    """'SiT tiny'."""
    return f'{family[0].upper()}i{family[-1].upper()} {size}'


def draw(records: Sequence[dict[str, Any]], family: str, size: str, out: Path) -> None:
    """Losses by steps and by seconds, mean and standard deviation over seeds."""
    figure = Figure(figsize=(8.4, 3.6), layout='constrained')
    panels: Any = figure.subplots(1, 2, sharey=True)
    unit = 'CPU seconds'
    for arm in ARMS:
        own = list(runs_of(records, family, size, arm).values())
        if not own:
            continue
        unit = f'{own[0]["clock"]} seconds'
        losses = np.array([run['losses'] for run in own])
        spread = losses.std(axis=0, ddof=1) if len(own) > 1 else np.zeros(losses.shape[1])
        steps = np.array(own[0]['at'])
        seconds = steps * statistics.mean(run['seconds_per_step'] for run in own)
        for axes, x in zip(panels, (steps, seconds), strict=True):
            (line,) = axes.plot(x, losses.mean(axis=0), marker='.', label=arm)
            axes.fill_between(x, losses.mean(axis=0) - spread, losses.mean(axis=0) + spread, color=line.get_color(), alpha=0.15)
    panels[0].set(xlabel='steps', ylabel='denoising loss, held out', title=title(family, size))
    panels[1].set(xlabel=f'{unit} of training', title='without pretraining')
    panels[0].legend(fontsize='small')
    for axes in panels:
        axes.grid(alpha=0.3, which='both')
    with write_whole(out) as file:
        figure.savefig(file, format='png', dpi=100)


def write_report(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write the pictures beside the records, and the tables into the page of the same name.

    Raises:
        ValueError: The page lacks the two marks between which the tables belong.
    """
    page = path.with_suffix('.md')
    text = page.read_text() if page.is_file() else f'{BEGIN}\n{END}\n'
    before, begin, rest = text.partition(f'{BEGIN}\n')
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"'{page}' lacks the lines '{BEGIN}' and '{END}', between which the tables belong: add them")
    path.parent.mkdir(parents=True, exist_ok=True)
    for family, size in shown(records):
        draw(records, family, size, path.with_name(f'{path.stem}-{family}-{size}.png'))
    with write_whole(page) as file:
        file.write(f'{before}{begin}\n{tables(records, path.stem)}\n\n{end}{after}'.encode())
