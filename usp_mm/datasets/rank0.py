"""What one of several processes does for all: the others learn of its failure instead of waiting for it."""

from collections.abc import Callable
from typing import Any, TypeVar

from mmengine.dist import broadcast_object_list, is_main_process

T = TypeVar('T')


def decide_on_rank0(decide: Callable[[], T]) -> T:
    """What `decide` returns on the main process (something that can be pickled), on every one. To be called on every one.

    Raises:
        SystemExit: on the others, if `decide` raises on the main process.
    """
    answer: list[Any] = [False, None]
    try:
        if is_main_process():
            answer = [True, decide()]
    finally:
        broadcast_object_list(answer)
    decided, value = answer
    if not decided:
        raise SystemExit(1)
    return value


def run_on_rank0(action: Callable[[], T]) -> T | None:
    """What `action` returns on the main process, where it stays; None on the others, once it is done.

    Raises:
        SystemExit: on the others, if `action` raises on the main process.
    """
    results: list[T] = []
    decide_on_rank0(lambda: results.append(action()))
    return results[0] if results else None
