"""Limit how long the threads of a computation spin while they wait for each other.

An OpenMP thread that has nothing to do spins for a while before it sleeps. GNU's, of torch's Linux wheels, spins 300,000 times
(milliseconds), Intel's and LLVM's for 200 ms. On a busy machine, this takes the cores from the threads that have work to do.
"""

import os
import sys

#: GNU: turns of the waiting loop, about a tenth of a millisecond. Intel and LLVM: milliseconds, the shortest possible wait.
WAITS = {'GOMP_SPINCOUNT': '10000', 'KMP_BLOCKTIME': '1'}


def wait_briefly() -> None:
    """Set `WAITS` in the environment, where the user has set neither the variable nor `OMP_WAIT_POLICY`.

    The libraries read them when they are loaded: once torch is imported, this does nothing.
    """
    if 'torch' not in sys.modules and 'OMP_WAIT_POLICY' not in os.environ:
        for name, value in WAITS.items():
            os.environ.setdefault(name, value)
