"""A training loop that MMEngine lacks."""

from itertools import chain, repeat

from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator

from usp_mm.datasets import EpochInfiniteSampler
from usp_mm.registry import LOOPS


@LOOPS.register_module()
class PositionedIterTrainLoop(IterBasedTrainLoop):
    """MMEngine's `IterBasedTrainLoop` (same arguments) whose resumed run goes on at the next sample.

    Upstream reads all past batches again; here the sampler is told where to start.

    Raises:
        ValueError: the training data come from another sampler than `EpochInfiniteSampler`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.dataloader.sampler, EpochInfiniteSampler):
            raise ValueError(
                f'PositionedIterTrainLoop got train_dataloader.sampler {type(self.dataloader.sampler).__name__}: '
                "use sampler=dict(type='EpochInfiniteSampler')"
            )

    def run(self):
        if self._iter > 0:
            self.dataloader.sampler.seek(self._iter * self.dataloader.batch_size)
            restarted = _InfiniteDataloaderIterator(self.dataloader)
            # upstream's loop takes one item for each past iteration
            self.dataloader_iterator = chain(repeat(None, self._iter), restarted)
        return super().run()
