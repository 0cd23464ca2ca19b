"""Draw a metric of several runs against steps and GPU-hours, and print how many times faster each converges.

usp convergence work_dirs/sit-scratch work_dirs/sit-usp --labels scratch USP --metric Feature/FD
usp convergence scratch=runs/s0,runs/s1,runs/s2 usp=runs/u0,runs/u1,runs/u2    # mean ± deviation over seeds

Hours are those of training only, times the number of processes; validation and sampling are not in them.

For each pair of arms a line says in how many times fewer steps one reaches the last value of the other: the geometric mean over
the pairs of runs with the same seed, and Student's confidence interval of it over these pairs, computed from the logarithms of
the ratios (see usp_mm/analysis/seed_speed_up.py). The table of best values is about the arms' mean curves.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from usp_mm.config.arguments import ToolParser
from usp_mm.fileio.atomic import write_json
from usp_mm.fileio.outputs import check_file
from usp_mm.runtime.console import table_console

if TYPE_CHECKING:
    from usp_mm.analysis.convergence import Curve, SpeedUp
    from usp_mm.analysis.run_log import RunLog
    from usp_mm.analysis.seed_speed_up import SeedSpeedUp

METRICS = ('ADM/FID', 'Feature/FD', 'denoising_loss')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help='work folder, or LABEL=DIR1,DIR2,… of runs that differ in their seed'
    )
    parser.add_argument('--labels', nargs='+', help='one for each RUN (default: its own, or its folder)')
    parser.add_argument('--metric', help=f'as logged (default: the first of {", ".join(METRICS)} that all runs have)')
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument('--lower-is-better', action='store_true', dest='lower', default=None, help='default: by its name')
    direction.add_argument('--higher-is-better', action='store_false', dest='lower', default=None)
    parser.add_argument('--out', default='convergence.png', help='picture to write (default: %(default)s)')
    parser.add_argument(
        '--gpu-hours', action=argparse.BooleanOptionalAction, default=True, help='whether to draw the panel against hours'
    )
    parser.add_argument('--log', action='store_true', help='a logarithmic axis for the metric')
    parser.add_argument(
        '--confidence', type=float, default=0.95, metavar='P', help='of the interval over seeds (default: %(default)s)'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write curves and speed-ups there too')
    return parser.parse_args()


def read_arms(words: list[str], labels: list[str] | None) -> 'dict[str, list[RunLog]]':
    """Read the runs of each label.

    Raises:
        ValueError: The number of labels differs from that of RUN arguments, or a label occurs twice.
    """
    from usp_mm.analysis.run_log import read_run

    if labels is not None and len(labels) != len(words):
        raise ValueError(f'--labels has {len(labels)} names for {len(words)} RUNs: give one for each')
    arms: dict[str, list[RunLog]] = {}
    for i, word in enumerate(words):
        label, folders = split(word)
        label = labels[i] if labels else label
        if label in arms:
            raise ValueError(f"two RUNs are called '{label}': tell them apart with --labels")
        arms[label] = [read_run(folder) for folder in folders]
    return arms


def split(word: str) -> tuple[str, list[str]]:
    """Split 'LABEL=DIR1,DIR2' into ('LABEL', ['DIR1', 'DIR2']); without a label, the first folder's name is used."""
    if Path(word).is_dir():
        return Path(word).resolve().name, [word]
    # '=' and commas may belong to a folder's name if that folder exists
    starts = [i for i, character in enumerate(word) if character == '=']
    for start in starts:
        if (folders := existing_folders(word[start + 1 :])) is not None:
            return word[:start], folders
    if starts:
        return word[: starts[0]], word[starts[0] + 1 :].split(',')
    folders = existing_folders(word) or word.split(',')
    return Path(folders[0]).resolve().name, folders


def existing_folders(words: str) -> list[str] | None:
    """The folders of 'DIR1,DIR2'; None if one does not exist."""
    if Path(words).is_dir():
        return [words]
    for i, character in enumerate(words):
        if character == ',' and Path(words[:i]).is_dir() and (rest := existing_folders(words[i + 1 :])) is not None:
            return [words[:i], *rest]
    return None


def default_metric(runs: 'list[RunLog]') -> str:
    for name in METRICS:
        if all(name in run.metrics for run in runs):
            return name
    known = sorted(set.intersection(*(set(run.metrics) for run in runs)))
    raise ValueError(f'not all runs have one of {", ".join(METRICS)}: choose a --metric of {known}')


def show(curves: 'list[Curve]', speed_ups: 'list[SpeedUp]', metric: str, lower: bool, hours: str) -> None:
    from rich.table import Table

    console = table_console()
    table = Table('run', 'runs', 'points', f'best {metric}', 'at step', 'last', 'steps', hours, title=metric)
    for one in curves:
        best = one.best(lower)
        table.add_row(
            one.label, str(one.runs), str(len(one.steps)), measured(one, best), f'{one.steps[best]:,}', measured(one, -1),
            f'{one.steps[-1]:,}', f'{one.hours[-1]:,.3g}',
        )  # fmt: skip
    console.print(table)
    if not speed_ups:
        return
    table = Table(
        'run', 'to reach the best of', metric, 'its steps', 'steps', 'fewer steps', f'fewer {hours}', title='speed-up'
    )
    for found in speed_ups:
        sign = '≤ ' if found.at_first else ''
        more = '≥ ' if found.at_first else ''
        reached = ('not reached', '–', '–')
        if found.step is not None:
            reached = (f'{sign}{found.step:,.0f}', f'{more}{found.ratio:.2f} ×', f'{more}{found.hours_ratio:.2f} ×')
        table.add_row(found.label, found.other, f'{found.value:.4g}', f'{found.other_step:,}', *reached)
    console.print(table)


def compare_seeds(arms: 'dict[str, list[RunLog]]', metric: str, lower: bool, confidence: float) -> 'list[SeedSpeedUp]':
    """Compare each two arms seed by seed; a line says why two arms have no pairs of runs."""
    from usp_mm.analysis.seed_speed_up import pair_runs, seed_speed_up

    found = []
    for arm in arms.items():
        for other in arms.items():
            if arm[0] == other[0]:
                continue
            try:
                pair_runs(arm, other)
            except ValueError as error:
                if list(arms).index(arm[0]) < list(arms).index(other[0]):
                    print(f'no comparison by seed: {error}')
                continue
            found.append(seed_speed_up(arm, other, metric, lower, confidence))
    return found


def sentence(found: 'SeedSpeedUp', metric: str) -> str:
    """What a comparison by seed says."""
    target = f"{found.other}'s last {metric}"
    missed = sum(step is None for step in found.reached)
    num = len(found.reached)
    if found.ratio is None:
        return f'{found.label} does not reach {target} in {missed} of {num} {_runs(num)}'
    bound = 'at least ' if any(found.at_first) else ''
    text = f'{found.label} reaches {target} in {bound}{found.ratio:.2f} times fewer steps'
    if found.interval is None:
        return f'{text} (1 run, so no interval)'
    low, high = found.interval
    return f'{text} ({100 * found.confidence:g} % interval {low:.2f} to {high:.2f}, {num} pairs of runs by {found.pairs})'


def _runs(num: int) -> str:
    return 'run' if num == 1 else 'runs'


def measured(one: 'Curve', i: int) -> str:
    return f'{one.values[i]:.4g}' + (f' ± {one.deviation[i]:.2g}' if one.runs > 1 else '')


def main() -> None:
    args = parse_args()
    check_file(args.out, '--out')
    check_file(args.json, '--json')
    from usp_mm.analysis.convergence import curve, draw_convergence, lower_is_better, speed_up

    arms = read_arms(args.runs, args.labels)
    runs = [run for arm in arms.values() for run in arm]
    metric = args.metric or default_metric(runs)
    lower = lower_is_better(metric) if args.lower is None else args.lower
    curves = [curve(label, arm, metric) for label, arm in arms.items()]
    speed_ups = [speed_up(one, other, lower) for one in curves for other in curves if one is not other]
    by_seed = compare_seeds(arms, metric, lower, args.confidence)
    hours = 'GPU-hours' if all(run.info.get('device') == 'cuda' for run in runs) else 'process-hours'
    draw_convergence(curves, metric, args.out, hours if args.gpu_hours else None, args.log)
    show(curves, speed_ups, metric, lower, hours)
    for found in by_seed:
        print(sentence(found, metric))
    print(f'{args.out}: {metric}, {"lower" if lower else "higher"} is better')
    if args.json:
        arrays = [{key: getattr(v, 'tolist', lambda v=v: v)() for key, v in asdict(one).items()} for one in curves]
        ratios = [dict(asdict(one), ratio=one.ratio, hours_ratio=one.hours_ratio) for one in speed_ups]
        seeds = [dict(asdict(one), ratios=one.ratios, ratio=one.ratio, interval=one.interval) for one in by_seed]
        content = dict(metric=metric, lower_is_better=lower, hours=hours, curves=arrays, speed_ups=ratios, seed_speed_ups=seeds)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.json, content)
