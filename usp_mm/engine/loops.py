"""PositionedIterTrainLoop: a loop over iterations that resumes at the next sample."""

import logging
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import nn

from usp_mm.datasets import EpochInfiniteSampler
from usp_mm.registry import LOOPS

#: Where MMEngine's message hub keeps how many samples a run has trained on.
SEEN = 'samples_seen'


class _PastFirst(chain):
    """Yields a placeholder for each past iteration, then the data."""

    def skip_iter(self, num_iters: int) -> None:
        """Skip `num_iters` items: onedl-mmengine's loop calls this where MMEngine's loop takes the items itself."""
        for _ in range(num_iters):
            next(self)


@LOOPS.register_module()
class PositionedIterTrainLoop(IterBasedTrainLoop):
    """MMEngine's `IterBasedTrainLoop` (same arguments), except that a resumed run continues at the next sample.

    Upstream reads all past batches again; here the sampler starts at the right position.

    Raises:
        ValueError: The training data do not come from an `EpochInfiniteSampler`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.dataloader.sampler, EpochInfiniteSampler):
            raise ValueError(
                f'PositionedIterTrainLoop got train_dataloader.sampler {type(self.dataloader.sampler).__name__}: '
                "use sampler=dict(type='EpochInfiniteSampler')"
            )

    @property
    def batch(self) -> int:
        """Samples per iteration over all processes."""
        return self.dataloader.batch_size * get_world_size()

    def run(self) -> nn.Module:
        # counted in samples, so that a run resumed with another batch or number of processes neither repeats nor skips any
        self._seen = self._iter * self.batch
        if self._iter > 0:
            if SEEN in self.runner.message_hub.runtime_info:
                self._seen = self.runner.message_hub.get_info(SEEN)
            self.dataloader.sampler.seek(self._seen // get_world_size())
            restarted = _InfiniteDataloaderIterator(self.dataloader)
            # upstream's loop takes one item for each past iteration
            self.dataloader_iterator = _PastFirst(repeat(None, self._iter), restarted)
        logger = MMLogger.get_current_instance()
        logger.addFilter(_not_upstreams_advance)
        try:
            return super().run()
        finally:
            logger.removeFilter(_not_upstreams_advance)

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        self._seen += self.batch
        self.runner.message_hub.update_info(SEEN, self._seen)  # kept in checkpoints
        super().run_iter(data_batch)


def _not_upstreams_advance(record: logging.LogRecord) -> bool:
    """Filter out the message that past batches are read again, which does not happen in this loop."""
    return not record.getMessage().startswith('Advance dataloader')
