"""Hooks that MMEngine lacks."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import all_reduce_params, get_rank, is_distributed, master_only
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from usp_mm.datasets import EpochIndex, all_datasets
from usp_mm.datasets.seeding import seed_all
from usp_mm.models.restoration_picture import titled_restoration
from usp_mm.registry import HOOKS


@HOOKS.register_module()
class StatelessSeedHook(Hook):
    """Seed python, numpy and torch before each training iteration from (seed, rank, iteration).

    A resumed run then has the same drop path, dropout and mixup as an uninterrupted one.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        seed_all(runner.seed, get_rank(), runner.iter)


@HOOKS.register_module()
class BatchNormMeanHook(Hook):
    """Average the BatchNorm statistics over all processes after each training iteration.

    MMEngine's SyncBuffersHook does this only before a validation. In a loop over iterations, that is after the checkpoint, so a
    resumed run would continue with the statistics of the first process alone. SyncBatchNorm does not need this hook, which then
    costs nothing.
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
    """Draw a picture of restored images (Figures 5, 6) every `interval` epochs and at the end.

    The picture goes to the visualizer's backends (files, TensorBoard) under the name 'restoration'.

    Args:
        interval: Number of epochs between pictures.
        num_images: Number of images, evenly spaced over the training set.
        composite: See `usp_mm.models.restoration_picture.restoration_picture`.
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
        picture = titled_restoration(model, [dataset[index] for index in indices], self.composite)
        runner.visualizer.add_image('restoration', picture, step=runner.epoch + 1)


def resuming(runner: Runner) -> bool:
    """Whether the checkpoint being loaded is the one from which the run resumes, rather than weights loaded later."""
    return bool(runner._resume) and not getattr(runner, '_has_loaded', False)


def built_loops(runner: Runner) -> Iterator[tuple[str, BaseLoop]]:
    """Yield ('training', 'validation' or 'test', loop) for each loop that has been built."""
    for name, stage in (('_train_loop', 'training'), ('_val_loop', 'validation'), ('_test_loop', 'test')):
        loop = getattr(runner, name, None)
        if isinstance(loop, BaseLoop):
            yield stage, loop


def loaders_of(loop: BaseLoop) -> list[DataLoader]:
    """The data loaders of a loop; mmagic's loops have several."""
    return getattr(loop, 'dataloaders', None) or [loop.dataloader]


def datasets_of(loop: BaseLoop) -> Iterator[Any]:
    """Yield the data sets of a loop, and every data set inside them."""
    for loader in loaders_of(loop):
        yield from all_datasets(loader.dataset)


def metrics_of(loop: BaseLoop) -> list[Any]:
    """The metrics of a loop; mmagic's loops have several evaluators."""
    evaluators = getattr(loop, 'evaluators', None) or [loop.evaluator]
    return [metric for evaluator in evaluators for metric in evaluator.metrics or ()]


def unwrapped(runner: Runner) -> Any:
    """The model of the class that the config names, without wrappers for DDP or test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
