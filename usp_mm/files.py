"""Write files and folders atomically, so that a partly written one never appears under its final name."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

#: Errors by which a file system reports that the disk or the user's quota is full.
_FULL = {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'the disk quota is used up',
    errno.EFBIG: 'the file size limit is reached',
}


@contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears, complete and on disk, only when the block ends without an error."""
    partial = path.with_name(path.name + '.tmp')
    try:
        with partial.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error, and vanishes otherwise.

    Raises:
        OSError: `path` exists and is not an empty folder.
    """
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


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
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' is no JSON file ({error}): {fix}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, expected values by name: {fix}")
    return content


@contextmanager
def locked(path: Path, taken: str) -> Iterator[None]:
    """Hold a lock on the file `path`, which exists during the block; the lock is released if this process dies.

    Raises:
        ValueError: Another process holds the lock; `taken` is the message.
    """
    with path.open('wb') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by loader processes
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(taken) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


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
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, _too_little(folder, needed(), _FULL[error.errno])) from error


def check_free_space(folder: Path, needed: int) -> None:
    """Raise an OSError if the disk of `folder`, which need not exist yet, has less than `needed` bytes free."""
    if _free(folder) < needed:
        raise OSError(errno.ENOSPC, _too_little(folder, needed, 'too little disk space'))


def _too_little(folder: Path, needed: int, reason: str) -> str:
    return (
        f"cannot write into '{folder}', {reason}: needs {needed:,} more bytes, {_free(folder):,} are free; "
        'make room and run the same command again (what is finished is kept)'
    )


def _free(folder: Path) -> int:
    folder = folder.resolve()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
