"""Write files while the next ones' content is computed."""

from collections.abc import Callable
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Any

from mmengine.logging import MMLogger


class BackgroundCalls:
    """Calls made one after another in a thread of their own, while the caller goes on.

    After the block all of them have returned, also when the block ends with an error or Ctrl-C. An exception in a call is
    raised at the caller's next call, or at the end of the block; the calls behind it are not made.

    Args:
        waiting: how many calls may wait; the caller of one more waits itself.
    """

    def __init__(self, waiting: int = 2) -> None:
        self._calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = Queue(waiting)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name='background calls')

    def __call__(self, function: Callable[..., Any], *args: Any) -> None:
        """Have `function(*args)` called in its turn."""
        self._raise()
        self._calls.put((function, args))

    def __enter__(self) -> 'BackgroundCalls':
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._calls.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
        elif self._error is not None and self._error is not error:
            MMLogger.get_current_instance().error(f'and while that happened, {type(self._error).__name__}: {self._error}')

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._error is None:
                function, args = call
                try:
                    function(*args)
                except BaseException as error:  # the caller raises it
                    self._error = error
