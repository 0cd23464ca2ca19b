"""Accuracy of a trained classifier by level of noise: Gaussian on images (ImageNet-C's), diffusion of latents.

usp robustness CONFIG CHECKPOINT --noise both --out work_dirs/robustness

Writes robustness.json and robustness.png. The noise of image i is the same in every run.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from usp_mm.config.arguments import ToolParser, add_model_arguments, add_run_arguments, run_arguments
from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.atomic import write_json
from usp_mm.fileio.outputs import check_folder
from usp_mm.runtime.console import table_console

if TYPE_CHECKING:
    from mmengine.config import Config

TIMESTEPS = (50, 100, 200, 300, 400, 500)


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_model_arguments(parser, "a classifier's config", 'its checkpoint')
    parser.add_argument('--noise', choices=['image', 'latent', 'both'], default='both')
    parser.add_argument(
        '--severities', type=int, nargs='*', default=[1, 2, 3, 4, 5], help='severities of image noise (default: all five)'
    )
    parser.add_argument(
        '--timesteps',
        type=int,
        nargs='*',
        default=list(TIMESTEPS),
        help='levels of latent noise, of 1000 (default: %(default)s)',
    )
    parser.add_argument('--out', type=Path, help='folder to write to (default: the work folder)')
    add_run_arguments(parser)
    return parser.parse_args()


def check_levels(cfg: 'Config', severities: list[int], timesteps: list[int]) -> None:
    """Raise ValueError if a noise level does not exist or the config cannot use this noise."""
    from mmengine.config import Config

    from usp_mm.analysis.noise import add_image_noise, add_latent_noise

    for severity in severities:
        add_image_noise(Config(cfg.to_dict()), severity)
    for timestep in timesteps:
        add_latent_noise(Config(cfg.to_dict()), timestep)


def show(results: dict) -> None:
    from rich.table import Table

    metrics = list(results['clean'])
    table = Table('noise', 'level', *metrics)
    table.add_row('none', '', *(f'{results["clean"][name]:.2f}' for name in metrics))
    for row in results['image']:
        table.add_row('image', f'{row["severity"]} (std {row["std"]})', *(f'{row[name]:.2f}' for name in metrics))
    for row in results['latent']:
        table.add_row('latent', f'step {row["timestep"]}', *(f'{row[name]:.2f}' for name in metrics))
    table_console().print(table)


def main() -> None:
    args = parse_args()
    check_folder(args.out, '--out')
    from usp_mm.apis.folder_argument import take_folder

    take_folder(args)
    if not local_file(args.checkpoint).is_file():
        raise FileNotFoundError(f"no checkpoint at '{args.checkpoint}'")
    from usp_mm.analysis.noise_levels import draw_noise_levels, measure
    from usp_mm.engine.starting.build_runner import build_runner, load_run_config

    cfg = load_run_config(args.config, args.cfg_options, **run_arguments(args), initialises=False)
    severities = args.severities if args.noise in ('image', 'both') else []
    timesteps = args.timesteps if args.noise in ('latent', 'both') else []
    if not severities and not timesteps:
        raise ValueError(f'--noise {args.noise} has no level: name --severities or --timesteps')
    check_levels(cfg, severities, timesteps)
    cfg.load_from = args.checkpoint
    runner = build_runner(cfg)
    results = measure(runner, severities, timesteps)
    if runner.rank:
        return
    out = args.out or Path(cfg.work_dir)
    out.mkdir(parents=True, exist_ok=True)
    draw_noise_levels(out / 'robustness.png', results, next(iter(results['clean'])))
    write_json(out / 'robustness.json', dict(config=args.config, checkpoint=args.checkpoint, **results))
    show(results)
    print(f'{out}/robustness.json and robustness.png')
