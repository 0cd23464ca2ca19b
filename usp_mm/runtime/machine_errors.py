"""Say in one line what a machine lacks: room on its disk, memory, shared memory, or open files."""

import errno
import io
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from usp_mm.fileio.atomic import FULL, full_disk_message

_SHM = Path('/dev/shm')
#: Messages of torch's DataLoader for a process that loads data and was killed: its id, and the signal if that is known.
_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:exited unexpectedly|is killed by signal: ([\w ]+))')
#: Messages of gloo and NCCL when a process that takes part in a collective ends.
_CLOSED = re.compile(r'gloo/.*Connection (?:closed|reset) by peer|remote process exited or there was a network')
_ADDRESS = re.compile(r'\[([\da-f.:]+)\]:\d+')
_NO_FILES = re.compile(r'Too many open files|received \d+ items of ancdata|\[Errno (24|23)\]')
_NO_SHM = re.compile(r'unable to [^\n]*(?:shared memory|torch_\d+_)')


def explain_machine(error: BaseException) -> str | None:
    """Explain an error that the program is not to blame for; None for any other, and for one whose message says all.

    Returns:
        One line that names the resource, how much of it there is, and how to get more.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        return _full(error)
    text = str(error)
    if (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)) or _NO_FILES.search(text):
        return _no_files()
    if not isinstance(error, RuntimeError | OSError):
        return None
    if _NO_SHM.search(text):
        return f'there is too little shared memory for the processes that load data: {_more_shm()}'
    if killed := _WORKER.search(text):
        return _killed(killed[1], killed[2] or '')
    return None


def explain_closed(error: BaseException) -> str | None:
    """Explain the error of a process whose connection to another one was closed; None for any other."""
    if not isinstance(error, RuntimeError) or not _CLOSED.search(str(error)):
        return None
    address = _ADDRESS.search(str(error))
    where = f' on {address[1]}' if address else ''
    return f'another process{where} has ended or was cut off, see its own last lines: start all again, a training with --resume'


def _full(error: OSError) -> str | None:
    """Name the file that was written: the error's own, or the one that was open where it arose."""
    if error.strerror != os.strerror(error.errno or 0):
        return None  # says so already
    path = error.filename or next(_written(error.__traceback__), None)
    return None if path is None else full_disk_message(error, Path(os.fsdecode(path)))


def _written(trace: TracebackType | None) -> Iterator[str]:
    """Names of the files that are open for writing in the functions of a traceback, innermost first."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            file = value.stream if isinstance(value, logging.StreamHandler) else value
            if isinstance(file, io.IOBase) and isinstance(name := getattr(file, 'name', None), str) and _is_written(file):
                yield name


def _is_written(file: Any) -> bool:
    mode = getattr(file, 'mode', '')
    return isinstance(mode, str) and not {'w', 'a', 'x', '+'}.isdisjoint(mode)


def _no_files() -> str:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f'this needs more than the {limit} files that a process may have open here: `ulimit -n 4096`, or fewer num_workers'


def _killed(pid: str, name: str) -> str:
    what = f'process {pid}, which loads data, was ended' + (f' by the signal {name.strip()}' if name else '')
    if name.startswith('Bus error'):
        return f'{what}: there is too little shared memory: {_more_shm()}'
    return (
        f'{what}, as a machine does that runs out of memory (see `dmesg`): lower num_workers, batch_size or prefetch_factor; '
        f'shared memory: {_more_shm()}'
    )


def _more_shm() -> str:
    there = ''
    if _SHM.is_dir():
        total, _, free = shutil.disk_usage(_SHM)
        there = f'{free:,} of {total:,} bytes are free in {_SHM}, '
    return f'{there}enlarge it (`docker run --shm-size 8g`, `mount -o remount,size=8G {_SHM}`) or set num_workers to 0'
