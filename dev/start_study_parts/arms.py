"""The sizes and the arms of the protocol in docs/usp-start.md, and the config options that make them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from usp_mm.presets import ARCHS

FAMILIES = ('sit', 'dit')
SEEDS = 3
NUM_CLASSES = 8


@dataclass(frozen=True)
class Size:
    """What is fixed of a size.

    Attributes:
        arch: Depth, width and heads of encoder and generator; a preset, or a dict of its keys.
        img_size: Side of the pictures in pixels.
        config: Name of the generator's config from scratch, with the family in place of {}; options set the rest.
        pretrain_config: Name of the encoder's.
        batch_size, steps, interval: Of the generator's training; `interval` steps lie between two evaluations.
        momentum: Of the average of the generator's weights.
        lr: Constant learning rate of the generator.
        epochs, warmup, pretrain_lr: Of pretraining at length 1; length 4 has four times the epochs.
        route: Blocks before and after TREAD's route: the first that all tokens pass, and the last ones.
        num_times, num_samples: Of the denoising loss.
    """

    arch: str | dict[str, int]
    img_size: int
    config: str
    pretrain_config: str
    batch_size: int
    steps: int
    interval: int
    momentum: float
    lr: float
    epochs: int
    warmup: int
    pretrain_lr: float
    route: tuple[int, int]
    num_times: int
    num_samples: int

    @property
    def row(self) -> dict[str, int]:
        """Depth, width and heads, whichever way they are given."""
        return ARCHS[self.arch] if isinstance(self.arch, str) else self.arch


_TINY = Size(
    arch='tiny',
    img_size=64,
    config='{0}-tiny-p2_denoising-loss_1xb64-2k_digits',
    pretrain_config='usp_vit-tiny_1xb32-coslr-200e_own',
    batch_size=32,
    steps=240,
    interval=30,
    momentum=0.04,
    lr=1e-3,
    epochs=6,
    warmup=1,
    pretrain_lr=1e-3,
    route=(1, 1),
    num_times=6,
    num_samples=96,
)
_MEDIUM_ARCH = dict(depth=8, num_heads=6, embed_dims=192, decoder_depth=2, decoder_heads=4, decoder_dims=64)
#: `tiny`, `medium` and `tiny-long` (`tiny` trained four times as long) are for a laptop, `small` is for a GPU, and `toy` is to
#: try the script: its numbers mean nothing.
SIZES = {
    'tiny': _TINY,
    'medium': replace(_TINY, arch=_MEDIUM_ARCH, route=(2, 2), lr=6e-4, pretrain_lr=6e-4),
    'tiny-long': replace(_TINY, steps=960, interval=120, momentum=0.01, epochs=24, warmup=2),
    'small': replace(
        _TINY,
        arch='small',
        img_size=128,
        config='{0}-small-p2_1xb256-2k_emoji-128px',
        pretrain_config='usp_vit-small_1xb256-coslr-200e_emoji-128px',
        batch_size=256,
        steps=2000,
        interval=100,
        momentum=5e-3,
        lr=2e-4,
        epochs=200,
        warmup=20,
        pretrain_lr=6e-4,
        route=(2, 4),
        num_times=20,
        num_samples=381,
    ),
    'toy': replace(
        _TINY,
        arch={**_MEDIUM_ARCH, 'depth': 3, 'embed_dims': 24},
        steps=4,
        interval=2,
        epochs=2,
        num_times=2,
        num_samples=4,
        batch_size=4,
    ),
}


@dataclass(frozen=True)
class Arm:
    """What distinguishes an arm from scratch.

    Attributes:
        pretraining: Length of pretraining, 1 or 4; 0 is from random weights.
        routed: Whether training routes tokens.
        aligned: Whether training aligns with an encoder, REPA's loss.
    """

    pretraining: int = 0
    routed: bool = False
    aligned: bool = False


#: In the order in which they are run.
ARMS = {
    'scratch': Arm(),
    'usp': Arm(1),
    'usp-tread': Arm(1, routed=True),
    'scratch-tread': Arm(routed=True),
    'usp-repa': Arm(1, aligned=True),
    'usp-x4': Arm(4),
    'usp-x4-tread': Arm(4, routed=True),
    'usp-x4-repa': Arm(4, aligned=True),
}
BASELINE = 'scratch'


def teacher_seed(seed: int, seeds: int = SEEDS) -> int:
    """Seed of the pretraining that made REPA's teacher: never the one that the generator starts from."""
    return (seed + 1) % seeds


def generator_options(size: Size, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
    """Config options of a generator's training, without weights that it starts from and without a teacher.

    Args:
        size, arm, seed: What to train.
        folder: With the VAE in 'vae' and the latent caches in 'latents'.
    """
    options: dict[str, Any] = {
        'randomness.seed': seed,
        'model.data_preprocessor.vae': dict(name='laptop', path=str(folder / 'vae')),
        'model.denoiser.arch': size.arch,
        'model.denoiser.img_size': size.img_size,
        'model.denoiser.num_classes': NUM_CLASSES,
        'model.ema.momentum': size.momentum,
        'optim_wrapper.optimizer.lr': size.lr,
        'optim_wrapper.clip_grad.max_norm': 1.0,
        'train_dataloader.batch_size': size.batch_size,
        'train_dataloader.dataset.data_root': str(folder / 'latents' / 'train'),
        'train_dataloader.dataset.flip': True,
        'train_cfg.max_iters': size.steps,
        'train_cfg.val_interval': size.interval,
        'val_dataloader.batch_size': 64,
        'val_dataloader.dataset.data_root': str(folder / 'latents' / 'val'),
        'val_evaluator.metrics.num_times': size.num_times,
        'val_evaluator.metrics.num_samples': size.num_samples,
        'default_hooks.checkpoint.interval': -1,
        'default_hooks.checkpoint.save_last': False,
        'default_hooks.visualization': None,
        'default_hooks.run_info': None,
    }
    if arm.routed:
        options |= dotted('model.denoiser.route', dict(keep=0.5, start=size.route[0], end=-size.route[1]))
    return options


def start_options(checkpoint: str) -> dict[str, Any]:
    """Config options that start a generator from an encoder."""
    return dotted('model.denoiser.init_cfg', dict(type='USPPretrained', checkpoint=checkpoint))


def dotted(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """Options that make a dict where the config has none."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted(f'{prefix}.{key}', value) if isinstance(value, dict) else {f'{prefix}.{key}': value}
    return found


def teacher_options(size: Size, checkpoint: str, folder: Path, images: Path) -> dict[str, Any]:
    """Config options of REPA with an encoder of the same size as teacher, which sees the pictures through the VAE."""
    row = size.row
    backbone = dict(
        type='USPViT',
        arch=size.arch,
        vae=dict(name='laptop', path=str(folder / 'vae')),
        encode_images=True,
        img_size=size.img_size,
        out_type='featmap',
    )
    teacher = dict(name='usp-emoji', backbone=backbone, checkpoint=checkpoint, dim=row['embed_dims'])
    teacher |= dict(mean=[127.5] * 3, std=[127.5] * 3)
    repa = dict(teacher=teacher, depth=row['depth'] // 2, hidden_dims=2 * row['embed_dims'])
    return {**dotted('model.repa', repa), 'train_dataloader.dataset.images': str(images / 'train')}
