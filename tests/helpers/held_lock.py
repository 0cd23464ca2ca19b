"""A lock that another process holds."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = """
import sys
from pathlib import Path
from usp_mm.fileio.locks import locked

with locked(Path(sys.argv[1]), 'taken'):
    print('held', flush=True)
    input()
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen]:
    """Let a process of its own hold the lock `path` during the block."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, '-c', _HOLD, path], **pipes) as holder:
        assert holder.stdout.readline() == b'held\n'
        yield holder
        holder.communicate(b'\n')
