"""AccumulationHook: keep checkpoints at optimizer steps when gradients accumulate over several iterations."""

import logging
from contextlib import ExitStack

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, FlexibleRunner, Runner
from torch import nn

from usp_mm.compat.log_noise import schedule_before_steps
from usp_mm.registry import HOOKS

from ..runner_parts import accumulative_counts, by_epoch, wrappers


@HOOKS.register_module()
class AccumulationHook(Hook):
    """Keep every checkpoint at an optimizer step when `optim_wrapper.accumulative_counts` is above 1.

    A checkpoint holds no gradients, so a resumed run would lose what was accumulated since the last step. A loop over epochs
    therefore takes a step at the end of each epoch, and the mean of its last, shorter group is over the iterations in it;
    MMEngine goes on accumulating into the next epoch. In a loop over iterations, and for checkpoints within an epoch, an
    interval that would save between two steps is refused.

    Raises:
        ValueError: An interval would save between two steps (the message names the nearest valid ones), or
            `auto_scale_lr.enable` is set under a runner that leaves the accumulation out of the scale.
    """

    priority = 'HIGH'  # refuses before anything is written

    def __init__(self) -> None:
        self._quiet = ExitStack()

    def before_run(self, runner: Runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop) or _counts(runner) == 1:
            return
        scale = getattr(runner, '_auto_scale_lr' if isinstance(runner, FlexibleRunner) else 'auto_scale_lr')
        if (scale or {}).get('enable'):
            raise ValueError(
                "MMEngine's auto_scale_lr does not count optim_wrapper.accumulative_counts: train with this package's "
                'usp train --auto-scale-lr, or set the learning rate and auto_scale_lr.enable=False'
            )
        _check_intervals(runner)
        # it also appears where nothing is lost, and names a class that does not exist; `before_train` warns instead
        runner.logger.addFilter(_not_upstreams_warning)

    def before_train(self, runner: Runner) -> None:
        self._count_on(runner)
        if _counts(runner) > 1:
            self._quiet.enter_context(schedule_before_steps())
        runner.logger.removeFilter(_not_upstreams_warning)

    def after_train(self, runner: Runner) -> None:
        self._quiet.close()

    def before_train_epoch(self, runner: Runner) -> None:
        if by_epoch(runner) and _counts(runner) > 1:
            length = len(runner.train_dataloader)
            _count(runner, runner.iter - runner.epoch * length, length)

    def _count_on(self, runner: Runner) -> None:
        counts, done = _counts(runner), runner.iter
        if counts > 1 and by_epoch(runner) and len(runner.train_dataloader) < counts:
            runner.logger.warning(
                f'optim_wrapper.accumulative_counts={counts} is more than the {len(runner.train_dataloader)} iterations of an '
                'epoch: the optimizer steps at the end of each epoch'
            )
        if by_epoch(runner):
            done -= runner.epoch * len(runner.train_dataloader)  # steps are counted from the start of each epoch
        if lacking := done % counts:
            where = f'iteration {done} of the epoch' if by_epoch(runner) else f'iteration {done}'
            runner.logger.warning(
                f'{where} is no multiple of optim_wrapper.accumulative_counts={counts}: the next step comes after '
                f'{counts - lacking} more or at the end, without the gradients of the {lacking} before'
            )
        if counts > 1 and not by_epoch(runner):
            _count(runner, done, runner.max_iters)


def _counts(runner: Runner) -> int:
    """Iterations per optimizer step; the largest number if several optimizers differ."""
    return max(accumulative_counts(wrapper) for wrapper in wrappers(runner).values())


def _count(runner: Runner, done: int, whole: int) -> None:
    for wrapper in wrappers(runner).values():
        wrapper.initialize_count_status(nn.Identity(), done, whole)  # a model, to warn of batch norm again and again


def _check_intervals(runner: Runner) -> None:
    counts, loop = _counts(runner), runner.train_loop
    length = len(runner.train_dataloader) if by_epoch(runner) else None
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.by_epoch:
            continue
        _check_interval('CheckpointHook.interval', hook.interval, counts, length)
        _check_interval('CheckpointHook.save_begin', hook.save_begin, counts, length)
        if hook.save_best and length is None and runner._val_loop is not None:
            # a new best score writes the last checkpoint again
            for interval in {loop.val_interval, *loop.dynamic_intervals}:
                _check_interval('train_cfg.val_interval with save_best', interval, counts, None)


def _check_interval(name: str, interval: int, counts: int, epoch_length: int | None) -> None:
    """Refuse an interval that saves between two steps, counted over the whole run or within epochs of `epoch_length`."""
    if interval <= 0 or (interval % counts == 0 and (epoch_length is None or epoch_length % counts == 0)):
        return
    if epoch_length is not None:
        if interval % epoch_length:
            raise ValueError(
                f'{name}={interval} iterations would save between two optimizer steps '
                f'(accumulative_counts={counts}, {epoch_length} iterations an epoch): save by_epoch=True'
            )
        return
    below = interval - interval % counts
    near = ' or '.join(str(number) for number in (below, below + counts) if number)
    raise ValueError(
        f'{name}={interval} would save between two optimizer steps, where gradients get lost on a resume: it has to be a '
        f'multiple of optim_wrapper.accumulative_counts={counts}: use {near}'
    )


def _not_upstreams_warning(record: logging.LogRecord) -> bool:
    return 'GradientCumulativeOptimizerHook' not in record.getMessage()
