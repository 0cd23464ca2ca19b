"""Write to MMEngine's message hub without waiting for the device."""

from functools import partial
from typing import Any

from mmengine.dist import all_reduce_dict, is_distributed
from mmengine.hooks import CheckpointHook, Hook, LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch.nn.utils import clip_grad_norm_

from usp_mm.registry import HOOKS

from ..runner_parts import wrappers
from .scalar_history import KEPT, defer, keep, reduce_histories


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """A replacement for MMEngine's RuntimeInfoHook that leaves losses and gradient norms on the device.

    MMEngine's hook reads each of them at each iteration, so that the CPU waits for the GPU. Here they are read when the message
    hub is read: where LoggerHook logs, and in checkpoints. Values and windows are the same.

    With `ReduceLossHook`, the processes of a distributed run compute the means together where the numbers are read: at
    iterations that log or save, every 1000 iterations, before a validation and at the end of an epoch. Code that reads the
    message hub at other times gets the losses of its own process, and the log says so once.

    Args:
        history: How many of the latest values of each number the message hub and checkpoints keep; more where a window of the
            run's `log_processor` is longer. MMEngine keeps a million, 16 bytes each; None does so here.

    Raises:
        ValueError: `history` is below 1.
    """

    def __init__(self, history: int | None = 10_000) -> None:
        if history is not None and history < 1:
            raise ValueError(f'DeferredRuntimeInfoHook got history={history}: it must be at least 1, or None for all')
        self._history = history

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._kept = None if self._history is None else _longest_window(runner, self._history)
        self._reduces = is_distributed() and any(isinstance(hook, ReduceLossHook) for hook in runner.hooks)
        self._loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        for wrapper in wrappers(runner).values():
            if getattr(wrapper, 'clip_func', None) is clip_grad_norm_:
                wrapper.clip_func = partial(_clip, wrapper.message_hub, f'train/{wrapper.grad_name}')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        hub = runner.message_hub
        for name, value in (outputs or {}).items():
            keep(hub, f'train/{name}', value, own=self._reduces)
        for name in hub.log_scalars:
            if name.startswith('train/'):
                defer(hub, name, self._kept)  # rates and times: MMEngine's own history copies itself to add a number
        if self._reduces and self._is_read(runner, batch_idx):
            reduce_histories(hub)

    def after_train_epoch(self, runner: Runner) -> None:
        self.reduce(runner)

    def before_val(self, runner: Runner) -> None:
        self.reduce(runner)
        super().before_val(runner)

    def after_train(self, runner: Runner) -> None:
        self.reduce(runner)
        super().after_train(runner)

    def reduce(self, runner: Runner) -> None:
        """Compute the means over all processes of what was not read yet; every process has to call this."""
        if getattr(self, '_reduces', False):
            reduce_histories(runner.message_hub)

    def _is_read(self, runner: Runner, batch_idx: int) -> bool:
        """Whether something that all processes know of reads the message hub after this iteration."""
        logs = self.end_of_epoch(runner.train_dataloader, batch_idx)
        logs = logs or any(self.every_n_inner_iters(batch_idx, hook.interval) for hook in self._loggers)
        return logs or saves_now(self, self._savers, runner) or self.every_n_train_iters(runner, KEPT)


@HOOKS.register_module()
class ReduceLossHook(Hook):
    """Log the mean of every loss over all processes instead of the first process's value.

    The processes synchronise only where losses are read with DeferredRuntimeInfoHook, and at each iteration with MMEngine's
    hook.
    """

    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        self._deferred = any(isinstance(hook, DeferredRuntimeInfoHook) for hook in runner.hooks)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if outputs and not self._deferred and is_distributed():
            all_reduce_dict(outputs, op='mean')


def saves_now(hook: Hook, savers: list[CheckpointHook], runner: Runner) -> bool:
    """Whether one of these CheckpointHooks, which count iterations, saves after this iteration."""
    last = hook.is_last_train_iter(runner)
    return any(
        hook.every_n_train_iters(runner, saver.interval, saver.save_begin) or (saver.save_last and last) for saver in savers
    )


def _longest_window(runner: Runner, history: int) -> int | None:
    """`history`, or the longest window of values that the log processor averages if that is longer; None if it takes all."""
    processor = runner.log_processor
    windows = [processor.window_size, *(custom.get('window_size') for custom in processor.custom_cfg)]
    if 'global' in windows:
        return None
    if 'epoch' in windows:
        windows.append(len(runner.train_dataloader))
    return max(history, *(window for window in windows if isinstance(window, int)))


def _clip(hub: MessageHub, name: str, parameters: Any, **kwargs: Any) -> None:
    """Call `clip_grad_norm_` and keep the norm in the message hub; MMEngine, which would wait for the value, gets none."""
    keep(hub, name, clip_grad_norm_(parameters, **kwargs))
