"""Train for long at toy size, and look whether memory, open files, threads or the time of a step grow.

python dev/soak.py FOLDER --json report.json: pretraining with checkpoints and pictures, then SiT with validation. Exit code 1
if anything that is judged grows by more than its error. A busier machine makes every step take more CPU time: what is judged is
`steps`, the CPU time of a step in units of that of a fixed piece of work that is done beside it; `cpu` and `wall` are shown.
Resident memory moves in steps, as malloc asks for more and keeps it: what is judged is what malloc has given out (`allocated`)
and the number of Python's own blocks; `memory` is shown. By default the message hub keeps 500 values of each number; to see
the package's own default become full and then stay so: --history 10000 --warm-up 0.55.

python dev/soak.py FOLDER --stage app --iterations 1000       # requests to `usp app`, and what its process uses
python dev/soak.py FOLDER --stage cache --iterations 300000   # samples of a latent cache: written, verified, read by 4 workers
"""

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import usp_mm  # noqa: F401  (before torch)

# isort: split

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from scipy.stats import t as student
from soak_memory import allocated
from soak_serving import cache, serve

ROOT = Path(__file__).resolve().parent.parent
STAGES = {
    'pretraining': 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py',
    'sit': 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py',
}
#: What is measured, its unit, and its size in that unit.
UNITS = {
    'memory': ('KiB', 1024),
    'allocated': ('KiB', 1024),
    'blocks': ('blocks', 1),
    'open_files': ('files', 1),
    'threads': ('threads', 1),
    'steps': ('works', 1),
    'cpu': ('ms', 1e-3),
    'wall': ('ms', 1e-3),
}
#: Growth in 1,000 iterations that counts as none: less than an object of 33 bytes, and half a block, an iteration.
FLOORS = {'allocated': 32, 'blocks': 500}
#: What a growth of which is a fault.
JUDGED = ('allocated', 'blocks', 'open_files', 'threads', 'steps')
#: Share of a run, at its beginning, that is not looked at; blocks whose means are fitted; probability of a false alarm.
WARM_UP, BLOCKS, ALARM = 0.25, 10, 0.005
#: Measurements of a run, about.
ROWS = 200
BATCH, HISTORY = 8, 500
ARCH = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)


class Measures(Hook):
    """What the process uses every `every` iterations; `leak` bytes an iteration are kept for ever, to see that it is found."""

    priority = 'LOWEST'

    def __init__(self, every: int, leak: int = 0, seconds: float = math.inf) -> None:
        self.every, self.leak, self.seconds = every, leak, seconds
        self._leaked: list[bytes] = []
        self._table = np.zeros((3 * ROWS, 1 + len(UNITS)))  # now, so that noting allocates nothing
        self._noted = 0

    def before_train(self, runner: Runner) -> None:
        self._begun = time.monotonic()
        gc.collect()
        gc.freeze()  # what is there now takes no time in later collections
        self._start()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.leak:
            self._leaked.append(os.urandom(self.leak))
        if (runner.iter + 1) % self.every == 0:
            self._measure(runner.iter + 1)
        if time.monotonic() - self._begun > self.seconds:
            raise TimeoutError

    def _start(self) -> None:
        self._clocks = time.process_time(), time.perf_counter()

    @property
    def rows(self) -> list[dict[str, float]]:
        """One row each `every` iterations: 'iteration', and the keys of `UNITS` in their smallest units."""
        return [dict(zip(('iteration', *UNITS), row, strict=True)) for row in self._table[: self._noted].tolist()]

    def _measure(self, iteration: int) -> None:
        cpu, wall = time.process_time() - self._clocks[0], time.perf_counter() - self._clocks[1]
        work = fixed_work()
        gc.collect()
        process = Path('/proc/self')
        memory = int((process / 'statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')
        files, threads = len(os.listdir(process / 'fd')), len(os.listdir(process / 'task'))
        steps = cpu / self.every / work
        memories = (memory, allocated(), sys.getallocatedblocks())
        row = (iteration, *memories, files, threads, steps, cpu / self.every, wall / self.every)
        self._table[self._noted] = row
        self._noted += 1
        self._start()


def fixed_work() -> float:
    """CPU seconds of a piece of work, in Python and in torch, that is the same at each call."""
    begun = time.process_time()
    x = torch.full((64, 64), 0.5)
    for _ in range(100):
        x = torch.layer_norm(x @ x, (64,))
        sum(range(500))
    return time.process_time() - begun


def growth(rows: list[dict[str, float]], key: str, warm_up: float = WARM_UP) -> dict[str, Any]:
    """Slope of a measure over 1,000 iterations, and its standard error, from the means of blocks after the warm-up."""
    kept = rows[int(len(rows) * warm_up) :]
    blocks = [block for block in np.array_split(np.arange(len(kept)), BLOCKS) if len(block)]
    x = np.array([np.mean([kept[i]['iteration'] for i in block]) for block in blocks]) / 1000
    unit, size = UNITS[key]
    y = np.array([np.mean([kept[i][key] for i in block]) for block in blocks]) / size
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - slope * centred
    error = float(np.sqrt(rest @ rest / (len(x) - 2) / (centred @ centred)))
    limit = float(student.ppf(1 - ALARM, len(x) - 2)) * error
    return dict(
        unit=unit, mean=float(y.mean()), slope=slope, error=error, flat=bool(slope <= max(limit, FLOORS.get(key, 0)) + 1e-9)
    )


def config(stage: str, folder: Path, iterations: int, events: int, history: int = HISTORY) -> Config:
    """The demo's config of a stage at toy size, with so many validations or pictures, and checkpoints."""
    cfg = Config.fromfile(ROOT / STAGES[stage])
    often = max(iterations // events, 1)
    cfg.merge_from_dict(
        {
            'model.data_preprocessor.vae_path': str(folder / 'vae'),
            'train_dataloader.dataset.data_root': str(folder / 'cache'),
            'train_dataloader.batch_size': BATCH,
            'default_hooks.runtime_info.history': history,  # to be full within the warm-up
            'default_hooks.checkpoint': dict(interval=often, by_epoch=False, max_keep_ckpts=2),
        }
    )
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
    if stage == 'pretraining':
        cfg.model.backbone.arch = ARCH
        samples = json.loads((folder / 'cache' / 'manifest.json').read_text())['num_samples']
        epochs = -(-iterations * BATCH // samples)
        cfg.train_cfg.max_epochs, cfg.default_hooks.restoration.interval = epochs, max(epochs // events, 1)
        return cfg
    cfg.model.denoiser.arch, cfg.model.sampler.num_steps = ARCH, 2
    cfg.train_cfg.update(max_iters=iterations, val_interval=often)
    cfg.default_hooks.visualization.interval = often
    metric = dict(type='FeatureMetrics', extractor=dict(type='PixelFeatures', size=4), cache_dir=str(folder))
    metric['reference'] = str(folder / 'data' / 'imagenet' / 'train')
    for name in ('val', 'test'):
        cfg[f'{name}_dataloader'].update(batch_size=10)
        cfg[f'{name}_dataloader'].dataset.num_samples = 20
        cfg[f'{name}_evaluator'].metrics = dict(metric)
    return cfg


def soak(
    stage: str,
    folder: Path,
    iterations: int,
    leak: int = 0,
    seconds: float = math.inf,
    events: int = 20,
    history: int = HISTORY,
    warm_up: float = WARM_UP,
) -> dict[str, Any]:
    """Train a stage in this process; returns 'iterations', 'seconds' and for each measure what `growth` returns."""
    cfg = config(stage, folder, iterations, events, history)
    cfg.work_dir, cfg.experiment_name = str(folder / stage), f'soak-{stage}-{leak}'
    measures = Measures(max(iterations // ROWS, 1), leak, seconds)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(measures)
    begun = time.monotonic()
    try:
        runner.train()
    except TimeoutError:
        runner.logger.info(f'{seconds:.0f} seconds are over')
    finally:
        gc.unfreeze()
    return summary(measures.rows, time.monotonic() - begun, warm_up)


def summary(rows: list[dict[str, float]], seconds: float | None = None, warm_up: float = WARM_UP) -> dict[str, Any]:
    """'iterations', 'seconds', 'rows', and what `growth` returns for each measure of the rows."""
    found = {key: growth(rows, key, warm_up) for key in UNITS if key in rows[0]}
    if seconds is None:
        seconds = sum(row['wall'] for row in rows) * (rows[1]['iteration'] - rows[0]['iteration'])
    return dict(iterations=int(rows[-1]['iteration']), seconds=seconds, rows=rows, **found)


def show(report: dict[str, dict[str, Any]]) -> None:
    for stage, found in report.items():
        print(f'{stage}: {found["iterations"]:,} iterations in {found["seconds"]:.0f} s; growth in 1,000 iterations')
        for key in (key for key in UNITS if key in found):
            one, unit = found[key], UNITS[key][0]
            told = 'flat' if one['flat'] else 'GROWS' if key in JUDGED else 'grows'
            print(f'  {key:10} mean {one["mean"]:12.3f} {unit:8} slope {one["slope"]:+.4f} ± {one["error"]:.4f}  {told}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='for data and runs')
    parser.add_argument('--iterations', type=int, default=20_000, help='of each stage')
    parser.add_argument('--seconds', type=float, default=math.inf, help='of each stage, at most')
    parser.add_argument('--leak', type=int, default=0, help='bytes to leak each iteration, to see that it is found')
    parser.add_argument('--history', type=int, default=HISTORY, help='values of each logged number that are kept (%(default)s)')
    parser.add_argument('--warm-up', type=float, default=WARM_UP, help='share of the run that is left out (%(default)s)')
    parser.add_argument('--trace', action='store_true', help='say what the app keeps of its latter half of requests')
    parser.add_argument('--stage', choices=[*STAGES, 'app', 'cache'], help='one of them, in this process')
    parser.add_argument('--json', type=Path, help='where to write the report')
    args = parser.parse_args()
    folder = args.folder.resolve()
    if not (folder / 'cache').exists():
        from preempt_demo import prepare

        prepare(folder)
    if args.stage == 'cache':
        print({name: round(seconds, 1) for name, seconds in cache(folder, args.iterations).items()})
        return
    if args.stage == 'app':
        report = {'app': summary(serve(folder, args.iterations, trace=args.trace, seconds=args.seconds), warm_up=args.warm_up)}
    elif args.stage:
        limits = dict(leak=args.leak, seconds=args.seconds, history=args.history, warm_up=args.warm_up)
        report = {args.stage: soak(args.stage, folder, args.iterations, **limits)}
    else:
        report = {}
        for stage in STAGES:
            part = folder / f'{stage}.json'
            options = ['--iterations', args.iterations, '--seconds', args.seconds, '--leak', args.leak, '--json', part]
            options += ['--history', args.history, '--warm-up', args.warm_up]
            command = [sys.executable, __file__, folder, '--stage', stage, *options]
            with (folder / f'{stage}.log').open('w') as log:
                subprocess.run([*map(str, command)], stdout=log, stderr=log, check=False)
            report |= json.loads(part.read_text())
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    show(report)
    if not all(found[key]['flat'] for found in report.values() for key in JUDGED if key in found):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
