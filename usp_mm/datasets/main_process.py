"""Run a function on the main process (rank 0) for all of them; if it fails, the others end instead of waiting."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from mmengine.dist import broadcast_object_list, get_rank, is_main_process

from usp_mm.runtime.heartbeat import start_heartbeat

T = TypeVar('T')
#: How long a collective waits: the work of one process may take days, `usp_mm.runtime.heartbeat` reports one that has stopped.
PATIENCE = timedelta(days=7)


def meet_processes(take_gpu: bool = False) -> int:
    """Join torchrun's other processes, so that they can wait for each other, and return the rank of this process.

    A process that stops is reported by `usp_mm.runtime.heartbeat`.

    Args:
        take_gpu: Whether to select the GPU of this process's local rank.
    """
    if take_gpu and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        start_heartbeat()
        torch.distributed.init_process_group('gloo', timeout=PATIENCE)
    return get_rank()


def decide_on_rank0(decide: Callable[[], T]) -> T:
    """Call `decide` on the main process and return its result, which must be picklable, on all; all have to call this.

    Raises:
        SystemExit: On the other processes, if `decide` raises on the main process.
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
    """Call `action` on the main process and return its result there; the others wait for it and return None.

    Raises:
        SystemExit: On the other processes, if `action` raises on the main process.
    """
    results: list[T] = []
    decide_on_rank0(lambda: results.append(action()))
    return results[0] if results else None
