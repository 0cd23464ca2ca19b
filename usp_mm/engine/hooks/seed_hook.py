"""Seed the random numbers of each training iteration, so that a resumed run draws those of an uninterrupted one."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.datasets.seeding import seed_all
from usp_mm.registry import HOOKS


@HOOKS.register_module()
class StatelessSeedHook(Hook):
    """Seed python, numpy and torch before each training iteration from (seed, rank, iteration).

    A resumed run then has the same drop path, dropout and mixup as an uninterrupted one.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        seed_all(runner.seed, get_rank(), runner.iter)
