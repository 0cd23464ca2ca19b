"""Sections of a benchmark that end in every way; test_benchmark_gpu.py has them run in processes of their own."""

import os
import signal
import subprocess
import sys
import time


def fine(report, scale):
    report.speed('half', 2, 500.0, 3e12, peers='these')
    report.add(kernels=7)
    report.check('close', 0.5, 1.0)
    report.fact('toy', scale.toy)


def fails(report, scale):
    with report.attempt('a row', batch=3):
        raise MemoryError('no room\nfor more')
    raise RuntimeError('out of ideas')


def crashes(report, scale):
    report.row('before')
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(report, scale):
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])
    report.fact('child', child.pid)
    time.sleep(300)
