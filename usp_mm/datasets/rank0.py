"""What one of several processes does for all: the others learn of its failure instead of waiting for it."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from mmengine.dist import broadcast_object_list, get_rank, is_main_process

T = TypeVar('T')
#: How long a process waits for another, whose share of the work may take days.
PATIENCE = timedelta(days=7)


def meet_processes(take_gpu: bool = False) -> int:
    """Join the other processes of torchrun, only to wait for each other; returns the number of this one.

    Args:
        take_gpu: whether the process computes on the GPU of its number from now on.
    """
    if take_gpu and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        torch.distributed.init_process_group('gloo', timeout=PATIENCE)
    return get_rank()


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
