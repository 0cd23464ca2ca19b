"""The same small generator from scratch and from USP weights, scored on its averaged weights as it trains.

The judge is a classifier of the training digits that knows neither latents nor USP weights: FD is the Fréchet distance of
its features between 500 samples and the training digits.
"""

import argparse
import json
from pathlib import Path

from usp_mm.own_pictures.stages import Stages, console, last_checkpoint, latent_options, option, vae_options

from . import pretrain, probe

FEATURES = 'configs/features/resnet18-w16_1xb64-coslr-8e_digits.py'
#: model -> arm -> config.
CONFIGS = {
    model: {
        'scratch': f'configs/{model}/{model}-tiny-p2_1xb64-2k_digits.py',
        'USP': f'configs/{model}/{model}-tiny-p2_usp-pre_1xb64-2k_digits.py',
    }
    for model in ('sit', 'dit')
}
NAMES = {'sit': 'SiT', 'dit': 'DiT'}
VALIDATIONS = 8  # of a run of --generate-steps
NEEDS = 'pretrain'


def inputs(work_dir: Path, seeds: int) -> list[Path]:
    return [*probe.inputs(work_dir, seeds), work_dir / 'data' / 'demo.json']


def run(stages: Stages, args: argparse.Namespace) -> dict:
    judge = train_judge(stages)
    models = ('sit', 'dit') if args.full else ('sit',)
    return {model: compare(stages, args, model, judge) for model in models}


def train_judge(stages: Stages) -> str:
    """The classifier's checkpoint; one that is there is kept."""
    folder, data = stages.work_dir / 'features', stages.work_dir / 'data' / 'imagenet'
    if not (folder / 'last_checkpoint').exists():
        options = [option(f'{name}_dataloader.dataset.data_root', data) for name in ('train', 'val', 'test')]
        stages.run(
            'feature classifier', 'tools/train.py', FEATURES, '--work-dir', folder, '--overwrite', '--cfg-options', *options
        )
    return last_checkpoint(folder)


def compare(stages: Stages, args: argparse.Namespace, model: str, judge: str) -> dict:
    """Train both arms, draw their curves and samples."""
    work_dir, metric = stages.work_dir, 'val_evaluator.metrics'
    options = [
        *vae_options(work_dir),
        *latent_options(work_dir, 'train'),
        option(f'{metric}.reference', work_dir / 'data' / 'imagenet' / 'train'),
        option(f'{metric}.extractor.checkpoint', judge),
    ]
    if args.generate_steps:
        interval = max(1, args.generate_steps // VALIDATIONS)
        options += [f'train_cfg.max_iters={args.generate_steps}', f'train_cfg.val_interval={interval}']
    if args.generate_samples:
        options += [f'val_dataloader.dataset.num_samples={args.generate_samples}']
    folders: dict[str, list[Path]] = {arm: [] for arm in CONFIGS[model]}
    for seed in range(args.seeds):
        commands = {}
        for arm, config in CONFIGS[model].items():
            folder = work_dir / f'{model}-{arm.lower()}-seed{seed}'
            encoder = last_checkpoint(pretrain.run_dir(work_dir, seed))
            own = [f'randomness.seed={seed}', option(f'{metric}.cache_dir', work_dir / 'statistics' / arm.lower())]
            own += [option('model.denoiser.init_cfg.checkpoint', encoder)] if arm == 'USP' else []
            command = ['tools/train.py', config, '--work-dir', folder, '--overwrite', '--cfg-options', *own, *options]
            commands[f'{model} {arm} seed {seed}'] = command
            folders[arm].append(folder)
        stages.run_together(commands)
    curve, numbers = work_dir / f'convergence-{model}.png', work_dir / f'convergence-{model}.json'
    arms = [f'{arm}={",".join(map(str, runs))}' for arm, runs in folders.items()]
    stages.run(
        f'{model} curves', 'tools/plot_convergence.py', *arms, '--metric', 'Feature/FD', '--out', curve, '--json', numbers
    )
    found = json.loads(numbers.read_text())
    show_curves(found['curves'], f'{NAMES[model]}: FD by training steps')
    grids = {arm: str(draw(stages, model, arm, runs[0])) for arm, runs in folders.items()}
    return dict(found, curve=str(curve), grids=grids, judge=judge)


def show_curves(curves: list[dict], title: str) -> None:
    from rich.table import Table

    table = Table('steps', *(curve['label'] for curve in curves), title=title)
    for i, step in enumerate(curves[0]['steps']):
        deviations = (f' ± {curve["deviation"][i]:.2f}' if curve['runs'] > 1 else '' for curve in curves)
        table.add_row(f'{step:,}', *(f'{c["values"][i]:.2f}{d}' for c, d in zip(curves, deviations, strict=True)))
    console.print(table)


def draw(stages: Stages, model: str, arm: str, folder: Path) -> Path:
    """A grid of samples, a row for each digit."""
    grid = stages.work_dir / f'samples-{model}-{arm.lower()}.png'
    stages.run(
        f'{model} {arm} samples', 'tools/sample.py', CONFIGS[model][arm], last_checkpoint(folder), '--classes', *range(10),
        '--per-class', 10, '--grid', grid, '--cfg-options', *vae_options(stages.work_dir),
    )  # fmt: skip
    return grid


def rows(result: dict) -> dict[str, str]:
    table = {}
    for model, found in result.items():
        for curve in found['curves']:
            table[f'{NAMES[model]} {curve["label"]}, FD'] = ' → '.join(f'{curve["values"][i]:.2f}' for i in (0, -1))
        (faster,) = (one for one in found['speed_ups'] if one['label'] == 'USP')
        table[f"{NAMES[model]}: scratch's best FD"] = speed_up(faster)
        table[f'{NAMES[model]} samples, curves'] = '\n'.join([*found['grids'].values(), found['curve']])
    return table


def speed_up(faster: dict) -> str:
    """'3.21 after 2,000 steps; USP after 1,500, 1.33 × fewer'."""
    start = f'{faster["value"]:.2f} after {faster["other_step"]:,} steps; USP '
    if faster['step'] is None:
        return start + 'does not reach it'
    sign, more = ('≤ ', 'at least ') if faster['at_first'] else ('', '')
    return start + f'after {sign}{faster["step"]:,.0f}, {more}{faster["ratio"]:.2f} × fewer'
