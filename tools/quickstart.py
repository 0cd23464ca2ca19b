"""The main job on real images in a few minutes on a laptop: handwritten digits -> VAE -> latent cache ->
masked latent pretraining -> linear probe, with pictures.

Every stage is a command that works on ImageNet too; it is printed before it runs. Results: the table
at the end, `summary.json`, `restoration.png` and TensorBoard logs in the work folder.
"""

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

PRETRAIN = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
PROBE = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'
console = Console()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', default='work_dirs/quickstart', help='default: %(default)s')
    parser.add_argument('--full', action='store_true', help='three seeds instead of one')
    parser.add_argument('--vae-steps', type=int, help='training steps of the VAE, for a shorter or longer run')
    parser.add_argument('--pretrain-epochs', type=int, help='likewise')
    parser.add_argument('--probe-epochs', type=int, help='likewise')
    args = parser.parse_args()
    for option, epochs, warmup in (('pretrain', args.pretrain_epochs, 12), ('probe', args.probe_epochs, 10)):
        if epochs is not None and epochs <= warmup:
            parser.error(f'--{option}-epochs {epochs} must be more than the {warmup} warm-up epochs')
    return args


class Stages:
    """Runs commands one after another, each with its own log file, and remembers their times."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.seconds: dict[str, float] = {}

    def run(self, name: str, *command: object) -> None:
        """Run `python COMMAND`; its output goes to WORK_DIR/logs/NAME.log.

        Raises:
            SystemExit: the command failed; its last lines are shown.
        """
        words = [str(word) for word in command]
        console.print(f'\n[bold]{name}[/]  python {shlex.join(words)}', highlight=False, soft_wrap=True)
        log = self.work_dir / 'logs' / f'{name.replace(" ", "-")}.log'
        log.parent.mkdir(parents=True, exist_ok=True)
        start, lines = time.monotonic(), deque[str](maxlen=20)
        with log.open('w') as file, console.status('…') as status:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace'
            )
            try:
                for line in process.stdout:
                    file.write(line)
                    lines.append(line.rstrip())
                    status.update(f'{time.monotonic() - start:4.0f} s  {lines[-1][-(console.width - 15) :]}')
                code = process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                sys.exit('interrupted: run the same command again; data, VAE and latent caches that are finished are kept')
        self.seconds[name] = round(time.monotonic() - start, 1)
        if code:
            console.print('\n'.join(lines), markup=False, highlight=False)
            sys.exit(f"stage '{name}' failed (exit code {code}); its log: {log}")
        console.print(f'  {self.seconds[name]:.0f} s, log: {log}', highlight=False)


def prepare(stages: Stages, args: argparse.Namespace) -> None:
    """Digits, a VAE trained on them, and their cached latents."""
    work_dir = stages.work_dir
    stages.run('demo data', 'tools/make_demo_data.py', work_dir / 'data')
    digits = work_dir / 'data' / 'imagenet'
    if not (work_dir / 'vae').exists():
        steps = ['--steps', args.vae_steps] if args.vae_steps else []
        stages.run('tiny VAE', 'tools/train_tiny_vae.py', digits / 'train', work_dir / 'vae', *steps)
    for split in ('train', 'val'):
        vae = ['--vae', 'tiny', '--vae-path', work_dir / 'vae', '--img-size', 64]
        stages.run(
            f'cache {split}', 'tools/cache_latents.py', 'write', digits / split, work_dir / 'latents' / split, *vae, '--no-flip'
        )  # fmt: skip


def pretrain_and_probe(stages: Stages, args: argparse.Namespace, seed: int) -> dict:
    """Pretrain, probe the encoder, and probe a random one with the same seed, data and schedule."""
    work_dir = stages.work_dir
    data = [f'train_dataloader.dataset.data_root={work_dir}/latents/train']
    vae = f'model.data_preprocessor.vae_path={work_dir}/vae'
    run_dir = work_dir / f'pretrain-seed{seed}'
    epochs = [f'train_cfg.max_epochs={args.pretrain_epochs}'] if args.pretrain_epochs else []
    options = ['--cfg-options', f'randomness.seed={seed}', vae, *data, *epochs]
    stages.run(f'pretrain seed {seed}', 'tools/train.py', PRETRAIN, '--work-dir', run_dir, *options)
    losses = [record['loss'] for record in scalars(run_dir) if 'loss' in record]
    checkpoint = (run_dir / 'last_checkpoint').read_text().strip()

    accuracy = {}
    epochs = [f'train_cfg.max_epochs={args.probe_epochs}'] if args.probe_epochs else []
    data += [
        f'val_dataloader.dataset.data_root={work_dir}/latents/val',
        f'test_dataloader.dataset.data_root={work_dir}/latents/val',
    ]
    starts = {
        'usp': [f'model.backbone.init_cfg.checkpoint={checkpoint}'],
        'random': ['model.backbone.init_cfg=None'],
    }
    for start, init in starts.items():
        probe_dir = work_dir / f'probe-{start}-seed{seed}'
        options = ['--cfg-options', f'randomness.seed={seed}', vae, *data, *init, *epochs]
        stages.run(f'probe {start} seed {seed}', 'tools/train.py', PROBE, '--work-dir', probe_dir, *options)
        accuracy[start] = [r['accuracy/top1'] for r in scalars(probe_dir) if 'accuracy/top1' in r][-1]
    return dict(
        seed=seed, loss_first=losses[0], loss_last=losses[-1], accuracy=accuracy, checkpoint=checkpoint, run_dir=str(run_dir)
    )


def scalars(run_dir: Path) -> list[dict]:
    """The records that MMEngine logged in a work folder's latest run."""
    newest = max(run_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def draw(stages: Stages, run: dict) -> Path:
    """The restoration picture of eight held-out digits."""
    picture = stages.work_dir / 'restoration.png'
    stages.run(
        'restoration', 'tools/reconstruct.py', PRETRAIN, run['checkpoint'],
        '--images', stages.work_dir / 'data/imagenet/val', '--out', picture,
        '--cfg-options', f'model.data_preprocessor.vae_path={stages.work_dir}/vae',
    )  # fmt: skip
    return picture


def report(stages: Stages, runs: list[dict], picture: Path) -> None:
    """Print the table and write summary.json."""
    table = Table(title=f'USP on handwritten digits ({len(runs)} seed{"s" * (len(runs) > 1)})', show_header=False)
    rows = {
        'pretraining loss, first → last': ' → '.join(mean_of([r[key] for r in runs], 3) for key in ('loss_first', 'loss_last')),
        'linear probe, USP encoder': mean_of([r['accuracy']['usp'] for r in runs], 2) + ' %',
        'linear probe, random encoder': mean_of([r['accuracy']['random'] for r in runs], 2) + ' %',
        'time': f'{sum(stages.seconds.values()):.0f} s on {device_name()}',
        'restoration picture': str(picture),
        'TensorBoard': f'tensorboard --logdir {stages.work_dir}',
        'summary': str(stages.work_dir / 'summary.json'),
    }
    for row in rows.items():
        table.add_row(*row)
    console.print(table)
    summary = dict(runs=runs, seconds=stages.seconds, picture=str(picture), torch=torch.__version__, device=device_name())
    (stages.work_dir / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')


def device_name() -> str:
    """The GPU, or how many threads of which processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{torch.get_num_threads()} CPU threads ({platform.machine()})'


def mean_of(values: list[float], digits: int) -> str:
    """'mean' of one value, 'mean ± standard deviation' of several."""
    text = f'{statistics.mean(values):.{digits}f}'
    return f'{text} ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else text


def main() -> None:
    args = parse_args()
    stages = Stages(Path(args.work_dir))
    prepare(stages, args)
    runs = [pretrain_and_probe(stages, args, seed) for seed in range(3 if args.full else 1)]
    report(stages, runs, draw(stages, runs[0]))


if __name__ == '__main__':
    main()
