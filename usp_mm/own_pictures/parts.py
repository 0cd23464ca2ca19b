"""The parts of a training on own pictures. Each runs commands of this package and returns what goes into summary.json."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usp_mm.analysis.run_log import read_run
from usp_mm.config.options import VAE_NUMBERS, LaptopVAETraining
from usp_mm.fileio.atomic import read_json
from usp_mm.presets import ARCHS

from .plan import PICTURES, ROWS, Plan
from .stages import Stages, console, last_checkpoint, latent_options, option

PRETRAIN = 'usp_vit-tiny_1xb32-coslr-200e_own'
PROBE = 'vit-tiny_usp-pre_1xb32-linear-coslr-60e_own'
GENERATE = 'sit-tiny-p2_usp-pre_1xb32-2k_own'
#: Of the samples, in a training with several classes.
GUIDANCE = 2.0
#: A cached crop shows at least this share of its picture.
_CROP_SCALE = (0.6, 1.0)


@dataclass(frozen=True)
class Run:
    """A training: its folder, plan, seed, and what `copy_pictures` returned."""

    stages: Stages
    plan: Plan
    seed: int
    data: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.stages.work_dir

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.data['classes'])

    def pictures(self, split: str) -> Path:
        """Copies of the pictures of 'train' or 'val'."""
        return self.folder / 'pictures' / split

    def latents(self, split: str) -> Path:
        """Their latent cache."""
        return self.folder / 'latents' / split

    @property
    def vae_path(self) -> Path | str | None:
        """The VAE's weights; None for the preset's own source."""
        return self.plan.vae_path or (self.folder / 'vae' if self.plan.vae == 'laptop' else None)

    def model_options(self, network: str) -> list[str]:
        """Config options that set VAE and size of the `network`, 'backbone' or 'denoiser'."""
        plan, vae = self.plan, 'model.data_preprocessor.vae'
        path = f'{vae}.path=None' if self.vae_path is None else option(f'{vae}.path', self.vae_path)
        return [
            f'{vae}.name={plan.vae}',
            path,
            f'model.{network}.arch={plan.arch}',
            f'model.{network}.img_size={plan.img_size}',
        ]

    def train_options(self, lr: float) -> list[str]:
        """Config options that set data, batch, learning rate and seed of a training."""
        return [
            f'train_dataloader.batch_size={self.plan.batch_size}',
            f'optim_wrapper.optimizer.lr={lr}',
            f'randomness.seed={self.seed}',
        ]

    def schedule_options(self, epochs: int, warmup: int) -> list[str]:
        """Config options that set the epochs of a schedule, and of its warm-up."""
        hooks, interval = 'default_hooks', max(1, epochs // 10)
        return [
            f'train_cfg.max_epochs={epochs}', f'param_scheduler.0.end={warmup}', f'param_scheduler.1.begin={warmup}',
            f'{hooks}.checkpoint.interval={interval}', f'{hooks}.logger.interval={self.log_interval(epochs)}',
        ]  # fmt: skip

    def log_interval(self, epochs: int) -> int:
        """Steps between two points of a curve, some fifty in all."""
        per_epoch = max(1, self.data['train'] // self.plan.batch_size)
        return max(1, min(per_epoch, epochs * per_epoch // 50))


def vae(run: Run) -> dict[str, Any]:
    """Train the VAE `laptop`; any other VAE is used as it is."""
    plan, out = run.plan, run.folder / 'vae'
    if plan.vae != 'laptop' or plan.vae_path is not None:
        return dict(vae=plan.vae, path=plan.vae_path)
    if not (out / 'config.json').exists():
        defaults = LaptopVAETraining()
        settings = ['--steps', plan.vae_steps, '--seed', run.seed, '--size', min(defaults.size, plan.img_size)]
        run.stages.run('VAE', 'usp', 'train-vae', run.pictures('train'), out, '--vae', 'laptop', *settings)
    numbers = read_json(out / VAE_NUMBERS) or {}
    if 'psnr' in numbers:
        console.print(f'  {numbers["psnr"]:.1f} dB on held-out pictures ({numbers["held_out"]})', highlight=False)
    return dict(vae=plan.vae, path=str(out), psnr=numbers.get('psnr'))


def cache(run: Run) -> dict[str, Any]:
    """Encode the pictures once; a cache that was begun is finished."""
    plan = run.plan
    path = [] if run.vae_path is None else ['--vae-path', run.vae_path]
    common = ['--vae', plan.vae, *path, '--img-size', plan.img_size, '--shard-size', plan.shard_size, '--workers', 0]
    common += ['--layout', 'classes']
    crops = ['--random-crops', plan.crops, '--crop-scale', *_CROP_SCALE, '--seed', run.seed] if plan.crops else []
    for split, views in (('train', crops), ('val', ['--no-flip'])):
        run.stages.run(f'cache {split}', 'usp', 'cache', 'write', run.pictures(split), run.latents(split), *common, *views)
    return dict(train=str(run.latents('train')), val=str(run.latents('val')))


def pretrain(run: Run) -> dict[str, Any]:
    """Masked latent pretraining, a picture of what it restores of held-out pictures, and a model folder."""
    plan, folder, picture = run.plan, run.folder / 'pretrain', run.folder / 'restoration.png'
    model = run.model_options('backbone')
    options = [*model, *latent_options(run.folder, 'train'), *run.train_options(plan.lr)]
    options += run.schedule_options(plan.epochs, max(1, plan.epochs // 10))
    options += [f'default_hooks.restoration.interval={max(1, plan.epochs // 4)}']
    _train(run, 'pretraining', PRETRAIN, folder, f'epoch_{plan.epochs}.pth', options)
    checkpoint = last_checkpoint(folder)
    run.stages.run(
        'restoration', 'usp', 'reconstruct', PRETRAIN, checkpoint, '--images', run.pictures('val'), '--out', picture,
        '--composite', 'visible', '--cfg-options', *model,
    )  # fmt: skip
    loss = _last(folder, 'loss')
    _export(run, 'encoder', PRETRAIN, checkpoint, model, picture, [f'pretraining loss={loss:.4f}'])
    return dict(loss=loss, checkpoint=checkpoint, picture=str(picture), model=str(run.folder / 'encoder'))


def probe(run: Run) -> dict[str, Any]:
    """Linear probe and nearest neighbours of the frozen encoder, on the held-out pictures."""
    if len(run.classes) < 2:
        return dict(skipped='one class')
    plan, folder = run.plan, run.folder / 'probe'
    encoder = last_checkpoint(run.folder / 'pretrain')
    options = [*run.model_options('backbone'), *latent_options(run.folder, 'train', 'val')]
    options += [f'train_dataloader.batch_size={plan.batch_size}', f'randomness.seed={run.seed}']
    options += [f'auto_scale_lr.base_batch_size={plan.batch_size}']  # AdamW keeps one rate for every batch of a plan
    options += run.schedule_options(plan.probe_epochs, max(1, plan.probe_epochs // 10))
    options += [
        f'train_cfg.val_interval={max(1, plan.probe_epochs // 20)}',
        f'model.backbone.frozen_stages={ARCHS[plan.arch]["depth"]}',
        f'model.head.num_classes={len(run.classes)}',
        option('model.backbone.init_cfg.checkpoint', encoder),
    ]
    _train(run, 'linear probe', PROBE, folder, f'epoch_{plan.probe_epochs}.pth', options)
    neighbours = min(5, run.data['train'])
    run.stages.run(
        'nearest neighbours', 'usp', 'knn', PRETRAIN, encoder, '--train', run.pictures('train'), '--val', run.pictures('val'),
        '--k', neighbours, '--work-dir', run.folder / 'knn', '--cfg-options', *run.model_options('backbone'),
    )  # fmt: skip
    accuracy = _last(folder, 'accuracy/top1')
    found = json.loads((run.folder / 'knn' / 'knn.json').read_text())['results'][0]['top1']
    return dict(linear=accuracy, knn=found, k=neighbours, chance=100 / len(run.classes), pictures=run.data['val'])


def generate(run: Run) -> dict[str, Any]:
    """A SiT from the encoder's weights, samples, and a model folder."""
    plan, folder, picture = run.plan, run.folder / 'generate', run.folder / 'samples.png'
    num, hooks = len(run.classes), 'default_hooks'
    model = [*run.model_options('denoiser'), f'model.denoiser.num_classes={num}']
    options = [*model, *latent_options(run.folder, 'train'), *run.train_options(plan.generator_lr)]
    options += [
        option('model.denoiser.init_cfg.checkpoint', last_checkpoint(run.folder / 'pretrain')),
        f'train_cfg.max_iters={plan.steps}',
        f'{hooks}.checkpoint.interval={max(1, plan.steps // 5)}',
        f'{hooks}.logger.interval={max(1, plan.steps // 50)}',
        f'{hooks}.visualization.interval={max(1, plan.steps // 2)}',
        f'{hooks}.visualization.vis_kwargs_list.forward_kwargs.labels={list(range(min(num, ROWS)))}'.replace(' ', ''),
    ]
    _train(run, 'generator', GENERATE, folder, f'iter_{plan.steps}.pth', options, '--no-validate')
    checkpoint = last_checkpoint(folder)
    labels = list(range(min(num, ROWS)))
    guidance = ['--guidance', GUIDANCE] if num > 1 else []
    run.stages.run(
        'samples', 'usp', 'sample', GENERATE, checkpoint, '--classes', *(f'label={label}' for label in labels),
        '--per-class', PICTURES, '--grid', picture, *guidance, '--seed', run.seed, '--cfg-options', *model,
    )  # fmt: skip
    loss = _last(folder, 'loss')
    _export(run, 'generator', GENERATE, checkpoint, model, picture, [f'training loss={loss:.4f}'])
    return dict(loss=loss, checkpoint=checkpoint, picture=str(picture), model=str(run.folder / 'generator'))


def _train(run: Run, name: str, config: str, folder: Path, final: str, options: list[str], *flags: str) -> None:
    """Train until there is the checkpoint `final`, or go on where an earlier call stopped."""
    last = Path(last_checkpoint(folder)).name if (folder / 'last_checkpoint').exists() else None
    if last != final:
        begun = ['--resume'] if last else []
        run.stages.run(
            name, 'usp', 'train', config, '--work-dir', folder, *begun, *flags, '--cfg-options', *options, 'model_folder=False'
        )


def reached(folder: Path) -> int:
    """Epochs or iterations of the newest checkpoint of a training; 0 if there is none."""
    if not (folder / 'last_checkpoint').exists():
        return 0
    return int(Path(last_checkpoint(folder)).stem.rpartition('_')[2])


def _last(folder: Path, metric: str) -> float:
    """The last value that a training logged of a metric."""
    return float(read_run(folder).metric(metric)[1][-1])


def _export(run: Run, name: str, config: str, checkpoint: str, model: list[str], picture: Path, numbers: list[str]) -> None:
    out = run.folder / name
    if not out.exists():  # it appears whole
        with_vae = '--include-vae' if run.vae_path is not None else '--no-include-vae'
        words = ['--picture', picture, with_vae, '--number', *numbers, '--cfg-options', *model]
        run.stages.run(f'{name} folder', 'usp', 'export', config, checkpoint, out, *words)


#: The parts in order -> those that make their inputs.
NEEDS: dict[str, tuple[str, ...]] = {
    'vae': (), 'cache': ('vae',), 'pretrain': ('vae', 'cache'), 'probe': ('vae', 'cache', 'pretrain'),
    'generate': ('vae', 'cache', 'pretrain'),
}  # fmt: skip
PARTS: dict[str, Callable[[Run], dict[str, Any]]] = dict(
    vae=vae, cache=cache, pretrain=pretrain, probe=probe, generate=generate
)
