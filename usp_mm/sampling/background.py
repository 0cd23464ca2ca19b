"""Write files in the background while the content of the next ones is computed."""

from collections.abc import Callable
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Any

from mmengine.logging import MMLogger


class BackgroundCalls:
    """Run calls one after another in a separate thread while the caller continues.

    At the end of the `with` block all calls have returned, even if the block ends with an error or Ctrl-C. An exception in a
    call is raised at the caller's next call or at the end of the block, and the remaining calls are not made.

    Args:
        waiting: Number of calls that may wait in the queue; a further call blocks until there is room.
    """

    def __init__(self, waiting: int = 2) -> None:
        self._calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = Queue(waiting)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name='background calls')

    def __call__(self, function: Callable[..., Any], *args: Any) -> None:
        """Queue the call `function(*args)`."""
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
                except BaseException as error:  # re-raised in the caller's thread
                    self._error = error
