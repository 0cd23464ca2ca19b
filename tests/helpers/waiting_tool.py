"""A tool of two processes that wait for each other, see test_heartbeat.py: the last one stops, or its work takes long."""

import os
import signal
import sys
import time

from usp_mm.runtime.command import run_command


def main() -> None:
    from mmengine.dist import barrier

    from usp_mm.datasets.main_process import meet_processes

    rank, kind = meet_processes(), sys.argv[1]
    barrier()
    if rank == 1 and kind == 'stops':
        os.kill(os.getpid(), signal.SIGSTOP)
    if rank == 1:
        time.sleep(4)
    barrier()
    sys.stdout.write('done\n')


if __name__ == '__main__':
    run_command(main)
