"""How the threads of a computation wait for each other: short, then asleep.

An OpenMP thread that has nothing to do spins for a while before it sleeps. GNU's, of torch's Linux wheels, spins 300,000 times
(milliseconds), Intel's and LLVM's for 200 ms. Beside other work that takes the cores from the threads that are waited for.
"""

import os
import sys

#: Turns of GNU's waiting loop, a tenth of a millisecond; milliseconds, the shortest wait of Intel's and LLVM's.
WAITS = {'GOMP_SPINCOUNT': '10000', 'KMP_BLOCKTIME': '1'}


def wait_briefly() -> None:
    """Set `WAITS` in the environment, where the user has set neither the variable nor `OMP_WAIT_POLICY`.

    The libraries read them when they are loaded: once torch is imported, this does nothing.
    """
    if 'torch' not in sys.modules and 'OMP_WAIT_POLICY' not in os.environ:
        for name, value in WAITS.items():
            os.environ.setdefault(name, value)
