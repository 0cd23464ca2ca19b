"""Two processes that end while Gloo's threads still hold the last collective's tensor, see test_cli.py.

The threads get idle priority, so the main thread goes on to exit before they free the tensor.
"""

import atexit
import os
import sys
from pathlib import Path

import torch

from usp_mm.runtime.command import run_command

KEPT = []  # the group and with it its threads, as DistributedDataParallel keeps them


def gloo_threads() -> list[int]:
    return [int(path.parent.name) for path in Path('/proc/self/task').glob('*/comm') if 'gloo_run' in path.read_text()]


def main(rank: int) -> int:
    torch.distributed.all_reduce(torch.ones(3))
    torch.distributed.barrier()
    for thread in gloo_threads():
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    torch.distributed.all_reduce(torch.ones(3))
    return 3 if rank == 0 else 0


def end(rank: int, store: Path) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    KEPT.append(torch.distributed.group.WORLD)
    atexit.register(sys.stdout.write, 'at exit\n')
    run_command(lambda: main(rank))


def exit_codes(store: Path) -> list[int]:
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            end(rank, store)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == '__main__':
    for pair in range(3):
        sys.stdout.write(f'{exit_codes(Path(sys.argv[1]) / str(pair))}\n')
        sys.stdout.flush()
