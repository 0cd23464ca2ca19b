"""Save a checkpoint and end when the machine is taken away: SIGTERM and SIGUSR1, as Slurm, Kubernetes and clouds send them."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed
from mmengine.dist import barrier, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.datasets.main_process import PATIENCE
from usp_mm.registry import HOOKS
from usp_mm.runtime.processes import PREEMPTED

from ..records.runtime_info import DeferredRuntimeInfoHook
from ..runner_parts import by_epoch, wrappers
from .checkpoint_hook import AtomicCheckpointHook

#: Signals that ask a training to save a checkpoint and end.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_received: list[int] = []


@contextmanager
def noting_signals(hooks: Iterable[Hook] | None = None) -> Iterator[None]:
    """Note SIGTERM and SIGUSR1 in the block, for PreemptionHook, instead of ending at once; one that is ignored stays so.

    With `hooks` among which there is no PreemptionHook, which would answer them, nothing is noted.
    """
    if hooks is not None and not any(isinstance(hook, PreemptionHook) for hook in hooks):
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        _received.append(number)

    _received.clear()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    noted = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    try:
        for number in noted:
            signal.signal(number, note)
        yield
    finally:
        for number in noted:
            signal.signal(number, before[number])
        _received.clear()


@HOOKS.register_module()
class PreemptionHook(Hook):
    """End a training after the current step once one of its processes got a signal that `noting_signals` notes.

    All processes end after the same iteration, the one after a signal arrived; with gradient accumulation, after the next
    optimizer step. The checkpoint is of exactly that iteration, and the exit code is `usp_mm.runtime.processes.PREEMPTED`, 75.
    A signal during a validation is answered after it, and one in the last iteration not at all.

    The processes agree by a sum of one number over gloo, which runs while the next step is computed.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def before_train(self, runner: Runner) -> None:
        self._vote = _Vote() if is_distributed() else None
        self._ends = False
        savers = [hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)]
        self._saver = savers[0] if savers else None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        asked = bool(_received)
        self._ends |= asked if self._vote is None else self._vote(asked)
        if not self._ends or self.is_last_train_iter(runner) or not all(w.should_update() for w in wrappers(runner).values()):
            return
        if not (by_epoch(runner) and self.end_of_epoch(runner.train_dataloader, batch_idx)):
            self._end(runner, epoch_ended=False)

    def after_train_epoch(self, runner: Runner) -> None:
        if self._ends and by_epoch(runner) and not self.is_last_train_epoch(runner):
            self._end(runner, epoch_ended=True)

    def after_train(self, runner: Runner) -> None:
        if self._vote is not None:
            self._vote.close()

    def _end(self, runner: Runner, epoch_ended: bool) -> None:
        name = signal.Signals(_received[0]).name if _received else 'a signal to another process'
        if self._saver is None:
            raise SystemExit(f'{name}: the run ends without a checkpoint, since its config has no AtomicCheckpointHook')
        for hook in runner.hooks:
            if isinstance(hook, DeferredRuntimeInfoHook):
                hook.reduce(runner)
        path = self._saver.save_now(runner, epoch_ended)
        if self._vote is not None:
            self._vote.close()
        barrier()  # a launcher ends the others when the first one exits
        runner.logger.warning(f'{name}: saved {path}; the same command with --resume goes on from there')
        raise SystemExit(PREEMPTED)


class _Vote:
    """Whether any process says yes, known to all of them one call later."""

    def __init__(self) -> None:
        self._group = torch.distributed.new_group(backend='gloo', timeout=PATIENCE)
        self._work: torch.distributed.Work | None = None
        self._said = torch.zeros(1, dtype=torch.int32)

    def __call__(self, mine: bool) -> bool:
        agreed = self.close()
        self._said = torch.full((1,), int(mine), dtype=torch.int32)
        self._work = torch.distributed.all_reduce(self._said, group=self._group, async_op=True)
        return agreed

    def close(self) -> bool:
        """Wait for the last call's answer, and return it."""
        if self._work is None:
            return False
        self._work.wait()
        self._work = None
        return bool(self._said.numpy()[0])  # not an operation of torch
