"""End a pretraining by SIGTERM again and again, resume it on other numbers of processes, compare with an undisturbed run."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import usp_mm  # noqa: F401  (before torch)

# isort: split

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.registry import HOOKS

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, BATCH = 12, 32
#: Processes of each run: the first on 2, then another number each time.
PROCESSES = (2, 1, 4, 2, 1, 2)
#: Largest relative difference of the final loss; processes sum gradients in another order.
TOLERANCE = 1e-3
CONFIG = """_base_ = ['{root}/configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py']
custom_imports = dict(imports=['usp_mm', 'preempt_demo'])
model = dict(data_preprocessor=dict(vae=dict(path='{folder}/vae')))
train_dataloader = dict(batch_size={batch}, num_workers=0, persistent_workers=False, dataset=dict(data_root='{folder}/cache'))
train_cfg = dict(max_epochs={epochs})
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4, max_keep_ckpts=1), restoration=dict(interval=1000))
custom_hooks = [dict(type='SamplesSeenHook')]
"""


@HOOKS.register_module()
class SamplesSeenHook(Hook):
    """Write (epoch, sample) of each sample that was trained on into `seen/*.jsonl` of the work folder, a file a process."""

    def before_train(self, runner: Runner) -> None:
        folder = Path(runner.work_dir, 'seen')
        folder.mkdir(exist_ok=True)
        self._file = (folder / f'{time.time_ns()}-{os.getpid()}.jsonl').open('w')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        keys = [[sample.sample_idx.epoch, sample.sample_idx.sample] for sample in data_batch['data_samples']]
        self._file.write(json.dumps(keys) + '\n')
        self._file.flush()


def prepare(folder: Path) -> None:
    """Digits, a VAE with random weights, and their latents."""
    from usp_mm.datasets.demo import DemoData, make_demo_data
    from usp_mm.vaes.tiny import make_tiny_vae, save_vae

    make_demo_data(folder / 'data', DemoData(train_digits=320, val_digits=20, train_scenes=1, val_scenes=1))
    save_vae(make_tiny_vae(scaling_factor=0.5), folder / 'vae')
    command = ['write', folder / 'data/imagenet/train', folder / 'cache', '--vae', 'tiny', '--vae-path', folder / 'vae']
    subprocess.run(
        [sys.executable, ROOT / 'tools/cache_latents.py', *command, '--img-size', '64', '--workers', '0'], check=True
    )


def start(folder: Path, name: str, processes: int, *words: str) -> subprocess.Popen:
    config = folder / f'{name}-{processes}.py'
    config.write_text(CONFIG.format(root=ROOT, folder=folder, batch=BATCH // processes, epochs=EPOCHS))
    env = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/dev', 'OMP_NUM_THREADS': '1'}
    command = ['bash', ROOT / 'tools/dist_train.sh', config, str(processes), '--work-dir', folder / name, *words]
    return subprocess.Popen([*map(str, command)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def seen(folder: Path) -> Counter[tuple[int, int]]:
    """How often each sample of each epoch was trained on."""
    lines = [line for path in (folder / 'seen').glob('*.jsonl') for line in path.read_text().splitlines()]
    return Counter(tuple(key) for line in lines for key in json.loads(line))


def last_loss(folder: Path) -> float:
    """The mean loss of the last epoch."""
    logs = [line for path in folder.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()]
    losses = {record['step']: record['loss'] for record in map(json.loads, logs) if 'loss' in record}
    return sum(losses[step] for step in sorted(losses)[-320 // BATCH :]) / (320 // BATCH)


def ended(process: subprocess.Popen, codes: tuple[int, ...]) -> None:
    _, errors = process.communicate(timeout=900)
    if process.returncode not in codes:
        raise SystemExit(f'exit code {process.returncode} instead of {codes}\n{errors}')


def disturb(folder: Path, rng: random.Random) -> int:
    """Train with interruptions; return how many there were."""
    count = 0
    for turn, processes in enumerate(PROCESSES):
        before = sum(seen(folder / 'disturbed').values())
        process = start(folder, 'disturbed', processes, *(['--resume'] if turn else []))
        if turn + 1 < len(PROCESSES):
            while process.poll() is None and sum(seen(folder / 'disturbed').values()) == before:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGTERM)
            count += process.poll() is None
        ended(process, (0, 75, 128 + signal.SIGTERM))
        done = sum(seen(folder / 'disturbed').values())
        print(f'{processes} processes: {done - before} samples, {done} of {EPOCHS * 320} in all', flush=True)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=0, help='of the moments at which the run is ended')
    args = parser.parse_args()
    folder = args.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"'{folder}' is not empty: give another folder")
    prepare(folder)
    ended(start(folder, 'whole', 2), (0,))
    count = disturb(folder, random.Random(args.seed))
    samples = seen(folder / 'disturbed')
    losses = [last_loss(folder / name) for name in ('whole', 'disturbed')]
    weights = [torch.load(folder / n / f'epoch_{EPOCHS}.pth', weights_only=True)['state_dict'] for n in ('whole', 'disturbed')]
    apart = max((a - b).abs().max().item() for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    print(f'ended {count} times; loss of the last epoch {losses[0]:.6f}, disturbed {losses[1]:.6f}; weights within {apart:.2e}')
    if samples != seen(folder / 'whole') or set(samples.values()) != {1} or len(samples) != EPOCHS * 320:
        raise SystemExit('samples were repeated or left out')
    if abs(losses[1] / losses[0] - 1) > TOLERANCE:
        raise SystemExit(f'the losses differ by more than {TOLERANCE:.1%}')
    print('each sample was seen exactly once an epoch')


if __name__ == '__main__':
    main()
