"""Hooks that MMEngine lacks."""

from mmengine.dist import all_reduce_dict, get_rank, is_distributed, master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from usp_mm.datasets import LatentCacheDataset
from usp_mm.datasets.seeding import seed_all
from usp_mm.models.restoration import restoration_picture
from usp_mm.registry import HOOKS


@HOOKS.register_module()
class ReduceLossHook(Hook):
    """Log the mean over processes of every loss, not the first process's share of it."""

    priority = 'HIGHEST'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if outputs and is_distributed():
            all_reduce_dict(outputs, op='mean')


@HOOKS.register_module()
class StatelessSeedHook(Hook):
    """Seed python, numpy and torch before each training iteration from (seed, rank, iteration).

    Drop path, dropout and mixup of a resumed run are those of an uninterrupted one.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        seed_all(runner.seed, get_rank(), runner.iter)


@HOOKS.register_module()
class RestorationHook(Hook):
    """Draw what the model restores (Figures 5, 6): every `interval` epochs and at the end.

    The picture goes to the visualizer's backends (files, TensorBoard) under the name 'restoration'.

    Args:
        interval: epochs between pictures.
        num_images: evenly spaced samples of the training set.
        composite: see `restoration_picture`.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 10, num_images: int = 8, composite: str = 'predicted') -> None:
        self.interval, self.num_images, self.composite = interval, num_images, composite

    def after_train_epoch(self, runner: Runner) -> None:
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._draw(runner)

    @master_only
    def _draw(self, runner: Runner) -> None:
        model = _unwrapped(runner)
        dataset = runner.train_dataloader.dataset
        step = max(1, len(dataset) // self.num_images)
        samples = [dataset[i * step] for i in range(min(self.num_images, len(dataset)))]
        runner.visualizer.add_image('restoration', restoration_picture(model, samples, self.composite), step=runner.epoch + 1)


@HOOKS.register_module()
class LatentCacheCheckHook(Hook):
    """Refuse, before the first step, a latent cache of another VAE or size than the model's.

    Raises:
        ValueError: names what differs, both sides.
    """

    def before_train(self, runner: Runner) -> None:
        dataset = runner.train_dataloader.dataset
        if not isinstance(dataset, LatentCacheDataset):
            return
        model = _unwrapped(runner)
        codec, found = model.data_preprocessor.codec, dataset.manifest
        expected = {'vae': codec.name, 'image_size': model.backbone.geometry.img_size}
        if codec.network is not None:
            expected['vae_weight_hash'] = codec.weight_hash
        for key, value in expected.items():
            if found[key] != value:
                raise ValueError(
                    f"latent cache '{dataset.folder}' was written with {key}={found[key]!r}, the model has {value!r}: "
                    'write a cache for this model, or name the VAE and size that the cache was written with'
                )


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
