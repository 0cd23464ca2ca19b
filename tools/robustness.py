"""Test a classifier under noise: Gaussian noise on images (ImageNet-C's severities), and that of diffusion steps on latents.

python tools/robustness.py CONFIG CHECKPOINT --out work_dirs/robustness

Writes robustness.json and robustness.png. A single level: tools/test.py CONFIG CHECKPOINT --image-noise 0.18
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dist import get_rank
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import usp_mm  # noqa: F401  (upstream patches before anything else is imported)
from usp_mm.cli import run_command
from usp_mm.datasets.transforms import GaussianNoise
from usp_mm.engine.launch import add_run_arguments, build_runner, load_run_config
from usp_mm.engine.robustness import add_image_noise, add_latent_noise
from usp_mm.files import write_json, write_whole

METRIC = 'accuracy/top1'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="a classifier's config")
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--noise', nargs='+', choices=['image', 'latent'], default=['image', 'latent'], help='default: both')
    parser.add_argument('--stds', type=float, nargs='+', default=GaussianNoise.SEVERITIES, help='default: %(default)s')
    parser.add_argument('--timesteps', type=int, nargs='+', default=[50, 100, 200, 300, 400], help='default: %(default)s')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/robustness'), help='folder (default: %(default)s)')
    add_run_arguments(parser)
    return parser.parse_args()


def plan(args: argparse.Namespace) -> list[tuple[str, float, Callable[[Config], None]]]:
    """(kind of noise, level, what adds it to a config) of each test."""
    levels: list[tuple[str, float, Callable[[Config], None]]] = [('clean', 0, lambda cfg: None)]
    if 'image' in args.noise:
        levels += [('image', std, partial(add_image_noise, std=std)) for std in args.stds]
    if 'latent' in args.noise:
        levels += [('latent', step, partial(add_latent_noise, timestep=step)) for step in args.timesteps]
    return levels


def main() -> None:
    args = parse_args()
    if not Path(args.checkpoint).is_file():
        raise FileNotFoundError(f"no checkpoint at '{args.checkpoint}'")
    cfg = load_run_config(args, initialises=False)
    cfg.load_from = args.checkpoint
    tests = []
    for kind, level, add in plan(args):  # all of them are checked before the first runs
        one = cfg.copy()
        add(one)
        one.experiment_name = f'{Path(cfg.work_dir).name}-{kind}-{level}'
        tests.append((kind, level, one))
    rows = []
    for kind, level, one in tqdm(tests, desc='levels', disable=None):
        rows.append(dict(noise=kind, level=level, top1=build_runner(one).test()[METRIC]))
    if get_rank() == 0:
        report(args, rows)


def report(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Print the table; write robustness.png and then robustness.json."""
    args.out.mkdir(parents=True, exist_ok=True)
    draw(rows, args.out / 'robustness.png')
    write_json(args.out / 'robustness.json', dict(config=args.config, checkpoint=args.checkpoint, levels=list(rows)))
    table = Table('noise', 'level', 'top-1 %')
    for row in rows:
        table.add_row(row['noise'], f'{row["level"]:g}', f'{row["top1"]:.2f}')
    Console().print(table)
    print(f'{args.out}/robustness.json, robustness.png')


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Accuracy by level, a panel for each kind of noise."""
    labels = {'image': 'standard deviation on images in [0, 1]', 'latent': 'diffusion step of 1000'}
    kinds = [kind for kind in labels if any(row['noise'] == kind for row in rows)]
    figure = Figure(figsize=(5 * len(kinds), 4), layout='constrained')
    for i, kind in enumerate(kinds):
        panel: Any = figure.add_subplot(1, len(kinds), i + 1)
        shown = [row for row in rows if row['noise'] in ('clean', kind)]
        panel.plot([row['level'] for row in shown], [row['top1'] for row in shown], marker='.')
        panel.set(xlabel=labels[kind], ylabel='top-1 accuracy (%)', ylim=(0, None))
        panel.grid(alpha=0.3)
    with write_whole(out) as file:
        figure.savefig(file, format='png', dpi=150)


if __name__ == '__main__':
    run_command(main)
