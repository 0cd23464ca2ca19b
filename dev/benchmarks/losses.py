"""Losses of the first steps of a digits run in each fast setting, against eager float32: one picture, and the differences.

It takes the VAE and the latents that tools/quickstart.sh makes. Every run has the same seed, data order, masks and noise, so
that whatever differs is rounding.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HELP = 'losses of a digits run in each fast setting against eager float32, in one picture'
ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    'USP': ROOT / 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py',
    'SiT': ROOT / 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py',
}
PLAIN = 'eager float32'
#: What tools/train.py is called with, and what of it are values of --cfg-options.
SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    PLAIN: ([], []),
    'bfloat16': (['--amp'], []),
    'compiled blocks': ([], ['model.compile=blocks']),
    'compiled loss': ([], ['model.compile=loss']),
    'fused optimizer': ([], ['optim_wrapper.optimizer.fused=True']),
    '--fast': (['--fast'], ['optim_wrapper.optimizer.fused=True']),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--networks', nargs='+', choices=CONFIGS, default=list(CONFIGS), help='default: both')
    parser.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS), help='default: all')
    parser.add_argument('--steps', type=int, default=200, help='default: %(default)s')
    parser.add_argument(
        '--quickstart', type=Path, default=Path('work_dirs/quickstart'), metavar='DIR', help='with vae and latents/train'
    )
    parser.add_argument('--picture', type=Path, metavar='FILE.png', help='draw the curves there')


def run(args: argparse.Namespace) -> dict[str, Any]:
    from usp_mm.fileio.outputs import check_file

    check_file(args.picture, '--picture', ('.png',))
    for part in ('vae', 'latents/train'):
        if not (args.quickstart / part).is_dir():
            raise FileNotFoundError(
                f"no '{args.quickstart / part}': run tools/quickstart.sh, or name its folder by --quickstart"
            )
    losses: dict[str, dict[str, list[float]]] = {}
    rows = []
    for network in args.networks:
        losses[network] = {}
        for setting in dict.fromkeys([PLAIN, *args.settings]):
            losses[network][setting] = train(network, setting, args)
            rows.append(compared(network, setting, losses[network]))
    if args.picture:
        draw(losses, args.picture)
    return dict(rows=rows, steps=args.steps)


def train(network: str, setting: str, args: argparse.Namespace) -> list[float]:
    """The loss of each step."""
    flags, options = SETTINGS[setting]
    quickstart = args.quickstart.resolve()
    with tempfile.TemporaryDirectory() as folder:
        options = [
            *options,
            f'model.data_preprocessor.vae.path={quickstart / "vae"}',
            f'train_dataloader.dataset.data_root={quickstart / "latents/train"}',
            'default_hooks.logger.interval=1',
            *length(network, args.steps),
        ]
        command = [sys.executable, str(ROOT / 'tools/train.py'), str(CONFIGS[network]), '--work-dir', folder, '--no-validate']
        subprocess.run([*command, *flags, '--cfg-options', *options], check=True, stdout=subprocess.DEVNULL)
        (log,) = Path(folder).glob('*/vis_data/scalars.json')
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line['loss'] for line in lines if 'loss' in line][: args.steps]


def length(network: str, steps: int) -> list[str]:
    """Options for a run that is long enough: 23 steps an epoch for USP, whose warm-up becomes one epoch in a short run."""
    if network == 'USP':
        epochs = -(-steps // 23)
        return [f'train_cfg.max_epochs={epochs}', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1'][
            : 1 if epochs > 12 else 3
        ]
    return [f'train_cfg.max_iters={steps}', f'default_hooks.checkpoint.interval={steps}']


def compared(network: str, setting: str, losses: dict[str, list[float]]) -> dict[str, Any]:
    """A row: the last losses, and the relative difference from eager float32 of single steps and of the curve's mean."""
    import numpy as np

    found, wanted = np.array(losses[setting]), np.array(losses[PLAIN])
    apart = np.abs(found - wanted) / wanted
    return {
        'network': network,
        'setting': setting,
        'last 20, mean': float(found[-20:].mean()),
        'largest difference %': float(100 * apart.max()),
        'mean difference %': float(100 * apart.mean()),
        'of the last 20, mean %': float(100 * (found[-20:].mean() / wanted[-20:].mean() - 1)),
    }


def draw(losses: dict[str, dict[str, list[float]]], file: Path) -> None:
    import numpy as np
    from matplotlib.figure import Figure

    from usp_mm.fileio.atomic import write_whole

    figure = Figure(figsize=(12.8, 4.8 * len(losses)), layout='constrained')
    panels: Any = figure.subplots(len(losses), 2, squeeze=False)
    for (left, right), (network, curves) in zip(panels, losses.items(), strict=True):
        wanted = np.array(curves[PLAIN])
        for setting, values in curves.items():
            steps = np.arange(1, len(values) + 1)
            left.plot(steps, values, label=setting, linewidth=1)
            if setting != PLAIN:
                apart = np.abs(np.array(values) - wanted) / wanted
                right.plot(steps, np.maximum(apart, 1e-8), label=setting, linewidth=1)
        left.set(xlabel='step', ylabel='loss', title=f'{network} on digits')
        right.set(
            xlabel='step', ylabel=f'relative difference from {PLAIN}', yscale='log', title=f'{network}: what rounding does'
        )
        for panel in (left, right):
            panel.grid(alpha=0.3)
            panel.legend()
    with write_whole(file) as stream:
        figure.savefig(stream, format='png', dpi=120)
