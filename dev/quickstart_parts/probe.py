"""Linear probes of the pretrained encoder and of a random one, with the same seed, data and schedule."""

import argparse
from pathlib import Path

from usp_mm.own_pictures.stages import Stages, last_checkpoint, latent_options, mean_of, option, scalars, vae_options

from . import pretrain

CONFIG = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'
WARMUP = 10  # epochs
NEEDS = 'pretrain'
NAMES = {'usp': 'USP', 'random': 'random'}


def inputs(work_dir: Path, seeds: int) -> list[Path]:
    checkpoints = [pretrain.run_dir(work_dir, seed) / 'last_checkpoint' for seed in range(seeds)]
    caches = [work_dir / 'latents' / split / 'manifest.json' for split in ('train', 'val')]
    return [work_dir / 'vae' / 'config.json', *caches, *checkpoints]


def run(stages: Stages, args: argparse.Namespace) -> dict:
    return dict(runs=[compare(stages, 'probe', CONFIG, args.probe_epochs, seed) for seed in range(args.seeds)])


def compare(stages: Stages, name: str, config: str, num_epochs: int | None, seed: int) -> dict:
    """Train a classifier's config from USP and from random weights, side by side: the last accuracies."""
    work_dir, accuracy = stages.work_dir, {}
    epochs = [f'train_cfg.max_epochs={num_epochs}'] if num_epochs else []
    options = [f'randomness.seed={seed}', *vae_options(work_dir), *latent_options(work_dir, 'train', 'val'), *epochs]
    starts = {
        'usp': option('model.backbone.init_cfg.checkpoint', last_checkpoint(pretrain.run_dir(work_dir, seed))),
        'random': 'model.backbone.init_cfg=None',
    }
    folders = {start: work_dir / f'{name}-{start}-seed{seed}' for start in starts}
    begin = {start: ['tools/train.py', config, '--work-dir', folder, '--overwrite'] for start, folder in folders.items()}
    stages.run_together({
        f'{name} {start} seed {seed}': [*begin[start], '--cfg-options', *options, init] for start, init in starts.items()
    })  # fmt: skip
    for start, folder in folders.items():
        accuracy[start] = [record['accuracy/top1'] for record in scalars(folder) if 'accuracy/top1' in record][-1]
    return dict(seed=seed, accuracy=accuracy)


def rows(result: dict) -> dict[str, str]:
    return {
        f'linear probe, {name} encoder': mean_of([run['accuracy'][start] for run in result['runs']], 2) + ' %'
        for start, name in NAMES.items()
    }
