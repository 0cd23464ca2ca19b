"""Pictures of restored images during pretraining."""

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.datasets import EpochIndex
from usp_mm.models.restoration_picture import titled_restoration
from usp_mm.registry import HOOKS

from ..runner_parts import unwrapped


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
