"""UPerNet on scenes of digits from the pretrained encoder and from random weights, at equal steps, and an overlay picture."""

import argparse
from pathlib import Path

from usp_mm.own_pictures.stages import Stages, last_checkpoint, mean_of, option, scalars

from . import pretrain, probe

CONFIG = 'configs/upernet/upernet_vit-tiny_usp-pre_1xb8-1k_digits-scenes-128x128.py'
NEEDS = 'pretrain'


def inputs(work_dir: Path, seeds: int) -> list[Path]:
    checkpoints = [pretrain.run_dir(work_dir, seed) / 'last_checkpoint' for seed in range(seeds)]
    return [work_dir / 'vae' / 'config.json', work_dir / 'data' / 'demo.json', *checkpoints]


def run(stages: Stages, args: argparse.Namespace) -> dict:
    runs = [compare(stages, args, seed) for seed in range(args.seeds)]
    picture = stages.work_dir / 'segmentation.png'
    draw_overlays(stages.work_dir / 'segment-usp-seed0', picture)
    return dict(runs=runs, picture=str(picture))


def draw_overlays(folder: Path, out: Path) -> None:
    """Eight scenes of the last validation, each with its true labels and the predicted ones beside it."""
    import numpy as np
    from PIL import Image

    from usp_mm.sampling.pictures import draw_grid, write_picture

    newest = max(folder.glob('*/vis_data/vis_image'))
    files = sorted(newest.glob('val_*.png'), key=lambda path: (-_step(path), path.name))  # NAME_STEP.png
    pictures = [np.asarray(Image.open(path).convert('RGB')) for path in files[:8]]
    write_picture(out, draw_grid([np.stack(pictures[i : i + 2]) for i in range(0, len(pictures), 2)]))


def _step(picture: Path) -> int:
    return int(picture.stem.rpartition('_')[2])


def compare(stages: Stages, args: argparse.Namespace, seed: int) -> dict:
    """Train both, side by side: their mIoU, %, at the end and by step."""
    work_dir = stages.work_dir
    scenes = [option(f'{name}_dataloader.dataset.data_root', work_dir / 'data' / 'ade20k') for name in ('train', 'val', 'test')]
    options = [f'randomness.seed={seed}', option('model.backbone.vae.path', work_dir / 'vae'), *scenes]
    if steps := args.segment_steps:
        warmup = max(1, steps // 10)
        options += [f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}']
        options += [f'param_scheduler.0.end={warmup}', f'param_scheduler.1.begin={warmup}']
    starts = {
        'usp': option('model.backbone.init_cfg.checkpoint', last_checkpoint(pretrain.run_dir(work_dir, seed))),
        'random': 'model.backbone.init_cfg=None',
    }
    folders = {start: work_dir / f'segment-{start}-seed{seed}' for start in starts}
    commands = {
        start: ['tools/train.py', CONFIG, '--work-dir', folders[start], '--overwrite', '--cfg-options'] for start in starts
    }
    stages.run_together({
        f'segment {start} seed {seed}': [*commands[start], *options, init] for start, init in starts.items()
    })  # fmt: skip
    curves = {
        start: {row['step']: row['mIoU'] for row in scalars(folder) if 'mIoU' in row} for start, folder in folders.items()
    }
    return dict(seed=seed, miou={start: list(curve.values())[-1] for start, curve in curves.items()}, curves=curves)


def rows(result: dict) -> dict[str, str]:
    table = {
        f'segmentation, {name} start, mIoU': mean_of([run['miou'][start] for run in result['runs']], 2) + ' %'
        for start, name in probe.NAMES.items()
    }
    return {**table, 'segmentation picture': result['picture']}
