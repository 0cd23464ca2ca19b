"""LateValidationHook: on resume, run the validation that a kill cut off."""

from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import BaseLoop, Runner

from usp_mm.fileio.atomic import write_whole
from usp_mm.registry import HOOKS

from ..loops import SEEN
from ..runner_parts import by_epoch, schedulers_of, wrappers
from .schedule import needs_score

#: File of a work folder that says after how many epochs or samples its last finished validation was.
VALIDATED = 'last_validation'


@HOOKS.register_module()
class LateValidationHook(Hook):
    """Run the validation that was due at the checkpoint a run goes on from, unless it was finished.

    A checkpoint is written before the validation of the same epoch or iteration. If a kill comes in between, an uninterrupted
    run would have had a score there, and maybe a best checkpoint, that the resumed one lacks. `last_validation` in the work
    folder says up to where validations were finished. Where something follows from scores, a schedule
    (ReduceOnPlateauLR) or an end (EarlyStoppingHook), a finished one is repeated too: what followed from it came after the
    checkpoint and is lost.
    """

    priority = 'LOWEST'  # after CheckpointHook: the best checkpoint is there

    def before_train(self, runner: Runner) -> None:
        if not isinstance(runner, Runner) or not runner._resume or not _is_due(runner):
            return
        finished = [_validated(Path(runner.work_dir)) if is_main_process() else 0]
        broadcast_object_list(finished)
        done = finished[0] >= _progress(runner)
        if done and not _follows_scores(runner):
            return
        why = 'what follows from its score is not in the checkpoint' if done else 'it was not finished'
        runner.logger.warning(f'resume: the validation that was due at the checkpoint is run first: {why}')
        runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        if is_main_process() and isinstance(runner._train_loop, BaseLoop):
            unit = 'epochs' if by_epoch(runner) else 'samples'
            with write_whole(Path(runner.work_dir, VALIDATED)) as file:
                file.write(f'{_progress(runner)} {unit}\n'.encode())


def _progress(runner: Runner) -> int:
    """How long the run has trained, in epochs, or in samples (iterations, where the loop does not count these).

    Neither depends on the batch size that a run is resumed with.
    """
    return runner.epoch if by_epoch(runner) else runner.message_hub.runtime_info.get(SEEN, runner.iter)


def _is_due(runner: Runner) -> bool:
    """Whether the training loop would have validated at the present position."""
    loop: Any = runner.train_loop
    if runner.val_loop is None:
        return False
    position, last = (loop.epoch, loop.max_epochs) if by_epoch(runner) else (loop.iter, loop.max_iters)
    if position == 0 or (by_epoch(runner) and loop.iter % len(loop.dataloader)):
        return False
    loop._decide_current_val_interval()
    return position >= loop.val_begin and (position % loop.val_interval == 0 or position == last)


def _validated(folder: Path) -> int:
    """The progress at the last finished validation; 0 if the folder does not tell."""
    try:
        return int((folder / VALIDATED).read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return 0


def _follows_scores(runner: Runner) -> bool:
    if any(isinstance(hook, EarlyStoppingHook) for hook in runner.hooks):
        return True
    schedulers = [scheduler for name in wrappers(runner) for scheduler in schedulers_of(runner, name)]
    return any(needs_score(scheduler) for scheduler in schedulers)
