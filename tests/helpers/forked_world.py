"""Processes of one run, forked from this one, which spares each its imports."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch


def forked_world(processes: int, work: Callable[[int], object]) -> list[int]:
    """Run `work(rank)` in so many processes, joined by gloo if there are several; returns their exit codes.

    A failure's traceback is on stderr.
    """
    store = Path(tempfile.mkdtemp()) / 'store'
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            _end(_joined(processes, rank, store, work))
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _joined(processes: int, rank: int, store: Path, work: Callable[[int], object]) -> int:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
    try:
        if processes > 1:
            torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=processes)
        work(rank)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:  # a child must not go on as its parent
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
