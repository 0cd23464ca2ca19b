"""The main job on real images in a few minutes on a laptop: handwritten digits -> VAE -> latent cache ->
masked latent pretraining -> linear probe, fine-tuning, segmentation -> image generators from scratch and from USP weights,
with pictures.

Every stage is a command that works on ImageNet too; it is printed before it runs. Results: the table
at the end, `summary.json`, the pictures and TensorBoard logs in the work folder.
"""

import argparse
import importlib
import json
import signal
import sys
from pathlib import Path

from usp_mm.fileio.atomic import write_json
from usp_mm.own_pictures.stages import Stages, console
from usp_mm.presets import lookup
from usp_mm.runtime.command import run_command
from usp_mm.runtime.processes import stop_on

NAMES = ('pretrain', 'probe', 'finetune', 'segment', 'generate')
PARTS = {name: importlib.import_module(f'quickstart_parts.{name}') for name in NAMES}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', default='work_dirs/quickstart', help='default: %(default)s')
    parser.add_argument('--only', metavar='PART,…', default=','.join(PARTS), help='parts to run, of %(default)s')
    parser.add_argument('--full', action='store_true', help='three seeds instead of one, and DiT beside SiT')
    parser.add_argument('--vae-steps', type=int, help='training steps of the VAE, for a shorter or longer run')
    parser.add_argument('--pretrain-epochs', type=int, help='likewise')
    parser.add_argument('--probe-epochs', type=int, help='likewise')
    parser.add_argument('--finetune-epochs', type=int, help='likewise')
    parser.add_argument('--segment-steps', type=int, help='likewise, of each segmentation model')
    parser.add_argument('--generate-steps', type=int, help='likewise, of each generator')
    parser.add_argument('--generate-samples', type=int, help='samples in each validation of a generator')
    args = parser.parse_args()
    args.seeds, args.only = 3 if args.full else 1, [name.strip() for name in args.only.split(',')]
    try:
        for name in args.only:
            lookup(PARTS, name, 'part')
    except ValueError as error:
        parser.error(f'--only: {error}')
    for name in ('pretrain', 'probe', 'finetune'):
        epochs, warmup = getattr(args, f'{name}_epochs'), PARTS[name].WARMUP
        if epochs is not None and epochs <= warmup:
            parser.error(f'--{name}-epochs {epochs} must be more than the {warmup} of warm-up')
    for name in ('segment', 'generate'):
        steps = getattr(args, f'{name}_steps')
        if steps is not None and steps < 2:
            parser.error(f'--{name}-steps {steps} must be at least 2')
    return args


def check_inputs(parts: list[str], work_dir: Path, seeds: int) -> None:
    """Before anything runs, SystemExit unless each part's inputs are there or made by another that runs now."""
    for name in parts:
        needs = PARTS[name].NEEDS
        missing = [] if needs in parts else [path for path in PARTS[name].inputs(work_dir, seeds) if not path.exists()]
        if missing:
            more = ' --full' if seeds > 1 else ''
            sys.exit(f"error: part '{name}' needs {missing[0]}, which part '{needs}' makes: --only {needs},{name}{more}")


def report(stages: Stages, results: dict[str, dict], seeds: int) -> None:
    """Print the table and write summary.json, which keeps what parts of earlier calls wrote."""
    import torch
    from rich.table import Table

    from usp_mm.engine.records.run_info import device_name

    table = Table(title=f'USP on handwritten digits ({seeds} seed{"s" * (seeds > 1)})', show_header=False)
    table.add_column()
    table.add_column(overflow='fold')
    summary_file = stages.work_dir / 'summary.json'
    for name, result in results.items():
        for row in PARTS[name].rows(result).items():
            table.add_row(*row)
    table.add_row('time', f'{stages.total:.0f} s on {device_name()}')
    table.add_row('TensorBoard', f'tensorboard --logdir {stages.work_dir}')
    table.add_row('summary', str(summary_file))
    console.print(table)
    summary = json.loads(summary_file.read_text()) if summary_file.exists() else {}
    seconds = {**summary.get('seconds', {}), **stages.seconds}
    write_json(summary_file, {**summary, **results, 'seconds': seconds, 'torch': torch.__version__, 'device': device_name()})


def main() -> None:
    stop_on(signal.SIGTERM, signal.SIGHUP)
    args = parse_args()
    stages = Stages(Path(args.work_dir))
    parts = [name for name in PARTS if name in args.only]
    check_inputs(parts, stages.work_dir, args.seeds)
    report(stages, {name: PARTS[name].run(stages, args) for name in parts}, args.seeds)


if __name__ == '__main__':
    run_command(main)
