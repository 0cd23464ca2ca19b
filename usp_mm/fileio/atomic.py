"""Write files and folders atomically, so that a partly written one never appears under its final name."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

#: Errors by which a file system reports that the disk or the user's quota is full.
FULL = {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'the disk quota is used up',
    errno.EFBIG: 'the file size limit is reached',
}
#: Names of temporary files and folders: what they become, the machine and the process that write them, and random digits.
_TEMPORARY = re.compile(r'\..*\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.tmp', re.DOTALL)
#: Seconds without a change after which the writer of a temporary file is taken to be dead if nothing else shows it.
_ABANDONED = 3600.0
#: Folders whose leftovers this process has removed.
_TIDIED: set[Path] = set()


@contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears, complete and on disk, only when the block ends without an error.

    Several processes may write the same path at once: a reader sees the whole file of one of them. The mode of the file
    follows from the umask. A symbolic link at `path` is replaced and not followed.

    Raises:
        OSError: Among others if the disk is full; the message then names the file and the sizes.
    """
    partial = _temporary(path)
    try:
        with _create(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        written = partial.stat().st_size if partial.exists() else 0
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise OSError(error.errno, full_disk_message(error, path, written)) from error
        raise
    _sync(path.parent)


@contextmanager
def write_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error, and vanishes otherwise.

    Files and folders in it get the modes that follow from the umask, also those that a library made for their owner alone.

    Args:
        path: The folder to write.
        replace: Whether to replace a folder that is not empty. It is moved to `.NAME.old` for a moment, from where
            `restore_folder` brings it back after a kill.

    Raises:
        OSError: `path` exists and is not an empty folder, and `replace` is not set.
    """
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    restore_folder(path)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        _settle(temporary)
        _replace_folder(temporary, path, replace)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.absolute().parent)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for a library's own temporary files; it ends with the block, or as `remove_leftovers` says."""
    scratch = _temporary(path)
    try:
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Finish what a killed `write_folder` left at `.NAME.old`: put it back if `path` is gone, delete it otherwise."""
    aside = _aside(path)
    if not aside.is_dir() or aside.is_symlink():
        return
    if path.is_dir() and any(path.iterdir()):
        shutil.rmtree(aside)
    else:
        aside.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders in `folder` whose writers were killed; the first write of a process calls it.

    A temporary name holds the writer's machine and process. Those of this machine's living processes stay, and those of others
    until nothing in them has changed for an hour.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _TEMPORARY.fullmatch(entry.name)) and _is_abandoned(Path(entry.path), match[1], int(match[2])):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)


def _create(path: Path) -> BinaryIO:
    return path.open('xb')  # neither follows a link nor opens another writer's file


def _temporary(path: Path) -> Path:
    """A name beside `path` that nothing else has, after the leftovers there are removed."""
    folder = path.absolute().parent
    if folder not in _TIDIED and folder.is_dir():
        remove_leftovers(folder)
        _TIDIED.add(folder)
    name = path.name.encode(errors='surrogateescape')[:150].decode(errors='ignore')
    return path.with_name(f'.{name}.{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.tmp')


@lru_cache
def _machine() -> str:
    """8 hex digits for the set of processes that this one can see: those of its host and container."""
    try:
        namespace = os.readlink('/proc/self/ns/pid')
    except OSError:
        namespace = ''
    return hashlib.sha256(f'{os.uname().nodename} {namespace}'.encode()).hexdigest()[:8]


def _is_abandoned(path: Path, machine: str, process: int) -> bool:
    if machine == _machine() and not is_running(process):
        return True
    try:
        files = [path, *path.rglob('*')] if path.is_dir() and not path.is_symlink() else [path]
        return time.time() - max(file.lstat().st_mtime for file in files) > _ABANDONED
    except FileNotFoundError:  # its writer lives
        return False


def is_running(process: int) -> bool:
    """Whether a process of this machine has this number; one that was killed and that nobody waits for, a zombie, has not."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return process > 0 and _state(process) not in ('Z', 'X')


def _state(process: int) -> str:
    """The letter of a process's state under Linux; empty if it cannot be read."""
    try:
        return Path(f'/proc/{process}/stat').read_bytes().rpartition(b') ')[2][:1].decode()
    except OSError:
        return ''


def _settle(folder: Path) -> None:
    """Give everything in a new folder the modes that the umask allows, and wait until it is on disk."""
    allowed = folder.stat().st_mode
    for path in (folder, *folder.rglob('*')):
        if path.is_symlink():
            continue
        if path != folder and path.stat().st_uid == os.geteuid():
            path.chmod(stat.S_IMODE(allowed) if path.is_dir() else allowed & 0o666)
        _sync(path)


def _replace_folder(temporary: Path, path: Path, replace: bool) -> None:
    if not (replace and path.is_dir() and any(path.iterdir())):
        os.replace(temporary, path)
        return
    aside = _aside(path)
    path.replace(aside)
    try:
        os.replace(temporary, path)
    except BaseException:
        restore_folder(path)
        raise
    shutil.rmtree(aside)


def _aside(path: Path) -> Path:
    return path.with_name(f'.{path.name}.old')


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    with write_whole(path) as file:
        file.write((json.dumps(content, indent=1) + '\n').encode())


def read_json(path: Path, fix: str = 'delete it') -> dict[str, Any] | None:
    """Read the JSON object in a file; None if the file does not exist. Error messages end with `fix`.

    Raises:
        ValueError: The file does not hold a JSON object.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is no JSON file ({error}): {fix}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, expected values by name: {fix}")
    return content


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def explain_full_disk(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Turn a full disk in the block into an OSError that says how many bytes are still `needed` and how many are free."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(error.errno, _too_little(folder, needed(), FULL[error.errno])) from error


def full_disk_message(error: OSError, path: Path, written: int | None = None) -> str:
    """Say which file a full disk has no room for, how much of it was `written`, by default its size now, and what is free."""
    if written is None:
        written = path.stat().st_size if path.is_file() else 0
    return (
        f"cannot write '{path}', {FULL[error.errno or errno.ENOSPC]}: {written:,} bytes of it were written, "
        f'{free_space(path.parent):,} are free; make room and run the same command again'
    )


def check_free_space(folder: Path, needed: int) -> None:
    """Raise an OSError if the disk of `folder`, which need not exist yet, has less than `needed` bytes free."""
    if free_space(folder) < needed:
        raise OSError(errno.ENOSPC, _too_little(folder, needed, 'too little disk space'))


def _too_little(folder: Path, needed: int, reason: str) -> str:
    return (
        f"cannot write into '{folder}', {reason}: needs {needed:,} more bytes, {free_space(folder):,} are free; "
        'make room and run the same command again (what is finished is kept)'
    )


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk of `folder`, which need not exist yet."""
    folder = folder.resolve()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
