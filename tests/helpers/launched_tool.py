"""A tool that is launched by test_torchrun.py and ends as its argument says, see there."""

import os
import sys
import time

from usp_mm.runtime.command import run_command
from usp_mm.runtime.processes import end_with_parent


def main() -> None:
    rank = int(os.environ.get('RANK', 0))
    kind = sys.argv[1]
    if 'wait' in kind:
        return wait(rank, kind)
    say_started()
    if kind == 'mistake':
        raise ValueError('there is no such thing: give another')
    if kind == 'mistake of the last' and rank == 1:
        raise ValueError('it is only me')
    time.sleep(120)


def say_started() -> None:
    sys.stdout.write(f'started {os.getpid()}\n')
    sys.stdout.flush()


def wait(rank: int, kind: str) -> None:
    try:
        say_started()
        for _ in range(1200):  # a signal just before time.sleep begins is seen when it ends
            time.sleep(0.1)
    except KeyboardInterrupt as error:
        if kind == 'wait and tell' and type(error) is KeyboardInterrupt:
            error.args = (f'after iteration {3 + rank}',)
        raise


if __name__ == '__main__':
    if sys.argv[1] == 'child':
        end_with_parent()
        main()
    run_command(main)
