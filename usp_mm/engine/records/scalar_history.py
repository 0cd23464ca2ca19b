"""Logged numbers that stay on the device until they are read."""

from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from torch import Tensor

#: Numbers of a history that are kept unread at most.
KEPT = 1000


class ScalarHistory(HistoryBuffer):
    """A `HistoryBuffer` of MMEngine that also takes one-element tensors, and reads them all at once when it is read itself.

    Copies, pickles and checkpoints of it are plain `HistoryBuffer`s.

    Attributes:
        own: Whether the tensors are values of this process only, until `reduce_histories` is called.
        kept: How many of the latest numbers stay, fewer than `max_length` of MMEngine; None for as many.
    """

    def __init__(self, history: HistoryBuffer | None = None) -> None:
        self._pending: list[tuple[Any, int]] = []
        self.own, self._warned = False, False
        self.kept: int | None = None
        super().__init__()
        if history is not None:
            self._logs, self._counts = history.data
            self.max_length = history.max_length

    # MMEngine's statistics read these two

    @property
    def _log_history(self) -> np.ndarray:
        self.read()
        return self._logs

    @_log_history.setter
    def _log_history(self, values: np.ndarray) -> None:
        self._logs = values

    @property
    def _count_history(self) -> np.ndarray:
        self.read()
        return self._counts

    @_count_history.setter
    def _count_history(self, values: np.ndarray) -> None:
        self._counts = values

    def update(self, log_val: Any, count: int = 1) -> None:
        """Add a number, or a copy of a tensor with one element."""
        if isinstance(log_val, Tensor):
            log_val = log_val.detach().reshape(()).clone()
        elif isinstance(log_val, np.ndarray | np.number):
            log_val = log_val.item()
        elif not isinstance(log_val, int | float):
            raise TypeError(f'a history takes numbers and tensors of one element, got {type(log_val).__name__}')
        self._pending.append((log_val, count))
        if len(self._pending) >= KEPT and not self.own:
            self.read()

    def current(self) -> Any:
        """The latest number; if it is not a tensor, the others are not read."""
        if self._pending and not isinstance(self._pending[-1][0], Tensor):
            return self._pending[-1][0]
        return super().current()

    def unread(self) -> list[Tensor]:
        """The tensors that have not been read yet."""
        return [value for value, _ in self._pending if isinstance(value, Tensor)]

    def read(self, values: list[float] | None = None) -> None:
        """Wait for the device and store the tensors' numbers, or `values` in their place."""
        if not self._pending:
            return
        tensors = self.unread()
        if values is None:
            if tensors and self.own:
                self._warn()
            values = torch.stack(tensors).tolist() if tensors else []
        numbers = iter(values)
        logs = [next(numbers) if isinstance(value, Tensor) else value for value, _ in self._pending]
        counts = [count for _, count in self._pending]
        self._pending.clear()
        first = len(self._logs) == 0
        self._logs = np.array(logs) if first else np.append(self._logs, logs)
        self._counts = np.array(counts) if first else np.append(self._counts, counts)
        kept = self.max_length if self.kept is None else min(self.kept, self.max_length)
        self._logs, self._counts = self._logs[-kept:], self._counts[-kept:]

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            MMLogger.get_current_instance().warning(
                'a loss was read between the iterations that log or save: it is of this process alone, not the mean of all'
            )

    def __reduce__(self) -> Any:
        return HistoryBuffer, (self._log_history, self._count_history, self.max_length)


def keep(hub: MessageHub, name: str, value: Any, own: bool = False) -> None:
    """`hub.update_scalar` without waiting for the device; for `own`, see `ScalarHistory`."""
    if name not in hub.log_scalars:
        hub.update_scalar(name, 0.0)  # this also registers the name for resumed runs
        hub.log_scalars[name] = ScalarHistory()
    history = hub.log_scalars[name]
    if not isinstance(history, ScalarHistory):
        history = hub.log_scalars[name] = ScalarHistory(history)
    history.own = own
    history.update(value)


def defer(hub: MessageHub, name: str, kept: int | None = None) -> None:
    """Turn a history of a message hub into a `ScalarHistory`, which keeps so many numbers."""
    history = hub.log_scalars[name]
    if not isinstance(history, ScalarHistory):
        history = hub.log_scalars[name] = ScalarHistory(history)
    history.kept = kept


def reduce_histories(hub: MessageHub) -> None:
    """Replace the unread values of each process by the mean over all processes; every process has to call this."""
    histories = [history for history in hub.log_scalars.values() if isinstance(history, ScalarHistory) and history.own]
    histories = [history for history in histories if history.unread()]
    if not histories:
        return
    tensors = [torch.stack(history.unread()) for history in histories]
    means = torch.cat(tensors)
    all_reduce(means, op='mean')
    for history, values in zip(histories, means.split([len(x) for x in tensors]), strict=True):
        history.read(values.tolist())
