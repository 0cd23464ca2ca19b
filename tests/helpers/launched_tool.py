"""A tool that is launched by test_torchrun.py and ends as its argument says, see there."""

import os
import sys
import time

from usp_mm.runtime.command import run_command
from usp_mm.runtime.processes import end_with_parent


def main() -> None:
    rank = int(os.environ.get('RANK', 0))
    sys.stdout.write(f'started {os.getpid()}\n')
    sys.stdout.flush()
    kind = sys.argv[1]
    if kind == 'mistake':
        raise ValueError('there is no such thing: give another')
    if kind == 'mistake of the last' and rank == 1:
        raise ValueError('it is only me')
    try:
        time.sleep(120)
    except KeyboardInterrupt as error:
        if kind == 'wait and tell' and type(error) is KeyboardInterrupt:
            error.args = (f'after iteration {3 + rank}',)
        raise


if __name__ == '__main__':
    if sys.argv[1] == 'child':
        end_with_parent()
        main()
    run_command(main)
