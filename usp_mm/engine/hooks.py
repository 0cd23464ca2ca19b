"""Hooks that MMEngine lacks."""

from typing import Any

from mmengine.dist import all_reduce_params, get_rank, is_distributed, master_only
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from usp_mm.datasets import EpochIndex, LatentCacheDataset, all_datasets
from usp_mm.datasets.seeding import seed_all
from usp_mm.models.restoration import restoration_picture
from usp_mm.registry import HOOKS


@HOOKS.register_module()
class StatelessSeedHook(Hook):
    """Seed python, numpy and torch before each training iteration from (seed, rank, iteration).

    Drop path, dropout and mixup of a resumed run are those of an uninterrupted one.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        seed_all(runner.seed, get_rank(), runner.iter)


@HOOKS.register_module()
class BatchNormMeanHook(Hook):
    """Give every process the mean of all processes' BatchNorm statistics after each training iteration.

    MMEngine's SyncBuffersHook does that before a validation, which in a loop over iterations comes after the checkpoint: a
    resumed run would go on with the first process's statistics alone. SyncBatchNorm needs neither, and costs nothing here.
    """

    def before_train(self, runner: Runner) -> None:
        layers = [m for m in unwrapped(runner).modules() if isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm)]
        self._statistics = [x for m in layers for x in (m.running_mean, m.running_var) if x is not None]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if self._statistics and is_distributed():
            all_reduce_params(self._statistics, op='mean')


@HOOKS.register_module()
class RestorationHook(Hook):
    """Draw what the model restores (Figures 5, 6): every `interval` epochs and at the end.

    The picture goes to the visualizer's backends (files, TensorBoard) under the name 'restoration'.

    Args:
        interval: epochs between pictures.
        num_images: evenly spaced samples of the training set.
        composite: see `restoration_picture`.
    """

    priority = 88  # after FiniteHook, which ends all processes together, and before CheckpointHook

    def __init__(self, interval: int = 10, num_images: int = 8, composite: str = 'predicted') -> None:
        self.interval, self.num_images, self.composite = interval, num_images, composite

    def before_train(self, runner: Runner) -> None:
        if unwrapped(runner).data_preprocessor.codec.network is None:
            runner.logger.warning('no restoration pictures: the VAE was not loaded (data_preprocessor.load_vae=False)')
            self.interval = 0

    def after_train_epoch(self, runner: Runner) -> None:
        if self.interval and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            self._draw(runner)

    @master_only
    def _draw(self, runner: Runner) -> None:
        model = unwrapped(runner)
        dataset = runner.train_dataloader.dataset
        step = max(1, len(dataset) // self.num_images)
        indices = [EpochIndex(i * step, seed=runner.seed) for i in range(min(self.num_images, len(dataset)))]
        picture = restoration_picture(model, [dataset[index] for index in indices], self.composite)
        runner.visualizer.add_image('restoration', picture, step=runner.epoch + 1)


@HOOKS.register_module()
class LatentCacheCheckHook(Hook):
    """Refuse, before the first step, a latent cache of another VAE, size or normalisation than the model's.

    Raises:
        ValueError: names what differs, both sides.
    """

    def before_train(self, runner: Runner) -> None:
        self._check_loop(runner, runner.train_loop)

    def before_val(self, runner: Runner) -> None:
        self._check_loop(runner, runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        self._check_loop(runner, runner.test_loop)

    def _check_loop(self, runner: Runner, loop: BaseLoop) -> None:
        for loader in loaders_of(loop):
            for dataset in all_datasets(loader.dataset):
                if isinstance(dataset, LatentCacheDataset):
                    self._check_cache(runner, dataset)

    def _check_cache(self, runner: Runner, dataset: LatentCacheDataset) -> None:
        model = unwrapped(runner)
        preprocessor, found = model.data_preprocessor, dataset.manifest
        codec, network = preprocessor.codec, model.denoiser if hasattr(model, 'denoiser') else model.backbone
        expected = {'vae': codec.name, 'image_size': network.geometry.img_size}
        if codec.network is not None:
            expected['vae_weight_hash'] = codec.weight_hash
        for key, value in expected.items():
            if found[key] != value:
                raise ValueError(
                    f"latent cache '{dataset.folder}' was written with {key}={found[key]!r}, the model has {value!r}: "
                    'write a cache for this model, or name the VAE and size that the cache was written with'
                )
        mean, std = preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()
        if {*mean, *std} != {127.5}:
            raise ValueError(
                f"latent cache '{dataset.folder}' was written from images normalised by 127.5, the data preprocessor has "
                f'mean={mean}, std={std}: use a data set of images for another normalisation'
            )


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Refuse a checkpoint of another model, which MMEngine would load in part or not at all and go on.

    Testing and `--resume` need every key and shape to match (an encoder's position table may be resized). Training from
    `load_from` may leave parts out, which are logged, but not everything.

    Raises:
        ValueError: names what is missing, unexpected or of another shape.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        ours, theirs = unwrapped(runner).state_dict(), checkpoint.get('state_dict', checkpoint)
        problems = {
            'missing': [name for name in ours if name not in theirs],
            'unexpected': [name for name in theirs if name not in ours],
            'of another shape': [
                f'{name} {_shape(theirs[name])} for {_shape(value)}'
                for name, value in ours.items()
                if name in theirs and name != 'backbone.pos_embed' and _shape(theirs[name]) != _shape(value)
            ],
        }
        found = '; '.join(f'{len(names)} {kind} ({", ".join(names[:3])}…)' for kind, names in problems.items() if names)
        if not found:
            if resuming(runner) and 'epoch' not in checkpoint.get('meta', {}):
                raise ValueError('the checkpoint holds weights alone: a run starts from it with load_from, but cannot resume')
            return
        in_part = isinstance(runner._train_loop, BaseLoop) and not resuming(runner)
        if not in_part or len(problems['missing']) + len(problems['of another shape']) == len(ours):
            fix = 'use the config it was trained with'
            if len(problems['missing']) == len(ours):
                fix += ', or convert it if it is of another project (tools/convert_checkpoint.py)'
            if all(name.startswith('denoiser_ema.') for name in problems['missing']) and not problems['of another shape']:
                fix = "it holds no averaged weights: --cfg-options model.ema=None model.sample_model='orig' samples without"
            raise ValueError(f'the checkpoint is of another model than the config: {found}: {fix}')
        runner.logger.warning(f'the checkpoint fits the model in part: {found}')


def _shape(value: Any) -> tuple[int, ...] | str:
    """Of a tensor; a layer's extra state may be anything, and says its type."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def resuming(runner: Runner) -> bool:
    """Whether a checkpoint that is being loaded is the one that the run goes on from, not weights that are loaded later on."""
    return bool(runner._resume) and not getattr(runner, '_has_loaded', False)


def loaders_of(loop: BaseLoop) -> list[DataLoader]:
    """The data loaders of a loop, of which mmagic's have several."""
    return getattr(loop, 'dataloaders', None) or [loop.dataloader]


def unwrapped(runner: Runner) -> nn.Module:
    """The model itself, without the wrappers of DDP and of test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
