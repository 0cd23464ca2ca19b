"""Average BatchNorm's running statistics over the processes of a run."""

from mmengine.dist import all_reduce_params, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from usp_mm.registry import HOOKS

from ..runner_parts import unwrapped


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
