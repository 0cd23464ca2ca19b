"""Locks by which one process at a time writes something, on any number of machines that share a file system with locks."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, taken: str) -> Iterator[None]:
    """Hold a lock on the file `path`, which is made if necessary and stays; the lock ends with the block or this process.

    While the lock is held the file names its holder, see `holder`, else it is empty. It is never deleted: a process that still
    had the deleted file open could lock it while another one locks a new file of that name. A symbolic link is refused.

    Raises:
        ValueError: Another process holds the lock; `taken` is the message, followed by the holder.
        OSError: The file can't be opened.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(taken + _holder_note(path)) from error
    try:
        _write(path, json.dumps(_signature()))
        try:
            yield
        finally:
            _write(path, '')
    finally:
        lock.release()


def holder(path: Path) -> dict[str, str | int] | None:
    """Who holds the lock `path`, or was killed while holding it: dict(host, pid, start), with the start in UTC; else None."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.keys() == {'host', 'pid', 'start'} else None


def _holder_note(path: Path) -> str:
    found = holder(path)
    return '' if found is None else f' (process {found["pid"]} on {found["host"]}, since {found["start"]} UTC)'


def _signature() -> dict[str, str | int]:
    return dict(host=os.uname().nodename, pid=os.getpid(), start=time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime()))


def _write(path: Path, text: str) -> None:
    """Replace the content of the lock file that this process holds; one that is something else stays as it is."""
    if path.stat().st_size and holder(path) is None:
        return
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
