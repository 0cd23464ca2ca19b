"""Count the changes that a process makes to a folder, and kill its group before one of them."""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_EVENTS = {
    'os.rename',
    'os.remove',
    'os.mkdir',
    'os.rmdir',
    'os.chmod',
    'os.truncate',
    'os.link',
    'os.symlink',
    'shutil.rmtree',
}
_WRITES = set('wax+')


class Change(NamedTuple):
    """One change: its number in its process, from 1; the event; and the path."""

    number: int
    event: str
    path: str


class Kill(NamedTuple):
    """Kill at the change of this number, 0 for never; all changes are written to the file `noted`."""

    number: int
    noted: Path


def changes_in(noted: Path) -> list[Change]:
    """The changes that were written to a file, in all processes."""
    lines = noted.read_text().splitlines() if noted.exists() else []
    fields = (line.split(' ', 2) for line in lines)
    return [Change(int(number), event, path) for number, event, path in fields]


def kill_at(kill: Kill, folder: Path) -> None:
    """Kill this process's group just before change `kill.number` of what is in `folder`.

    Changes are files opened for writing, renames, removals, new folders, modes and links, as Python's audit events report them,
    and the moment after a file was opened, when it is there and empty. What a library does without Python goes unseen.
    """
    inside, real = _inside(os.path.realpath(folder)), builtins.open
    file = os.open(kill.noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    count = 0

    def step(event: str, path: Any) -> None:
        nonlocal count
        count += 1
        os.write(file, f'{count} {event} {os.fsdecode(path)}\n'.encode())
        if count == kill.number:
            os.killpg(0, signal.SIGKILL)

    def hook(event: str, args: tuple) -> None:
        changes = _opens_to_write(args) if event == 'open' else event in _EVENTS
        if changes and any(inside(path) for path in args[:2]):
            step(event, args[0])

    def opened(path: Any, mode: str = 'r', *args: Any, **kwargs: Any) -> Any:
        result = real(path, mode, *args, **kwargs)
        if _WRITES & set(mode) and inside(path):
            step('opened', path)
        return result

    builtins.open = io.open = opened
    sys.addaudithook(hook)


def _opens_to_write(args: tuple) -> bool:
    _, mode, flags = args
    return bool(_WRITES & set(mode or '') or (flags or 0) & (os.O_WRONLY | os.O_RDWR))


def _inside(folder: str) -> Callable[[Any], bool]:
    def inside(path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(folder + os.sep)

    return inside
