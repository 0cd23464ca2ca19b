"""Digits, a VAE trained on them, their cached latents, masked latent pretraining, and a picture of what it restores."""

import argparse
from pathlib import Path

from usp_mm.own_pictures.stages import Stages, last_checkpoint, latent_options, mean_of, scalars, vae_options

CONFIG = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
WARMUP = 12  # epochs
NEEDS = None


def inputs(work_dir: Path, seeds: int) -> list[Path]:
    return []


def run(stages: Stages, args: argparse.Namespace) -> dict:
    prepare(stages, args)
    runs = [pretrain(stages, args, seed) for seed in range(args.seeds)]
    picture = stages.work_dir / 'restoration.png'
    stages.run(
        'restoration', 'tools/reconstruct.py', CONFIG, runs[0]['checkpoint'],
        '--images', stages.work_dir / 'data/imagenet/val', '--out', picture, '--cfg-options', *vae_options(stages.work_dir),
    )  # fmt: skip
    return dict(runs=runs, picture=str(picture))


def prepare(stages: Stages, args: argparse.Namespace) -> None:
    """Data, VAE and latent caches; what is there already is kept."""
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


def run_dir(work_dir: Path, seed: int) -> Path:
    """Where a pretraining run is."""
    return work_dir / f'pretrain-seed{seed}'


def pretrain(stages: Stages, args: argparse.Namespace, seed: int) -> dict:
    work_dir, folder = stages.work_dir, run_dir(stages.work_dir, seed)
    epochs = [f'train_cfg.max_epochs={args.pretrain_epochs}'] if args.pretrain_epochs else []
    options = [f'randomness.seed={seed}', *vae_options(work_dir), *latent_options(work_dir, 'train'), *epochs]
    stages.run(
        f'pretrain seed {seed}', 'tools/train.py', CONFIG, '--work-dir', folder, '--overwrite', '--cfg-options', *options
    )
    losses = [record['loss'] for record in scalars(folder) if 'loss' in record]
    return dict(seed=seed, loss_first=losses[0], loss_last=losses[-1], checkpoint=last_checkpoint(folder), run_dir=str(folder))


def rows(result: dict) -> dict[str, str]:
    losses = (mean_of([run[key] for run in result['runs']], 3) for key in ('loss_first', 'loss_last'))
    return {'pretraining loss, first → last': ' → '.join(losses), 'restoration picture': result['picture']}
