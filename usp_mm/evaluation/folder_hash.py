"""Hash of a folder of images, cached so that an evaluation need not read all files again."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mmengine.logging import MMLogger
from tqdm import tqdm

from usp_mm.fileio.atomic import read_json, sha256, write_json

T = TypeVar('T')
_THREADS = 16
#: Number of files that are passed to the threads at a time.
_BLOCK = 4096


def folder_hash(folder: Path, names: Sequence[str], cache: Path | None = None) -> str:
    """SHA-256 over the names and contents of files, in the given order.

    With `cache`, the hash is kept in `<cache>/hashes`, and the files are read again only if the name, size or modification
    time of one of them has changed.

    Args:
        folder: Folder of the files.
        names: Paths of the files, relative to the folder.
        cache: Folder for the hashes, which is created when needed; None reads the files every time.
    """
    note = None if cache is None else _note_of(folder, cache)
    state = None if note is None else _state(folder, names)
    if note is not None:
        kept = _read_note(note)
        if kept.get('state') == state and isinstance(kept.get('sha256'), str):
            return kept['sha256']
    content = hashlib.sha256()
    for name, digest in zip(names, _threaded(sha256, folder, names, 'hash'), strict=True):
        content.update(name.encode() + b'\0' + bytes.fromhex(digest))
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, dict(folder=str(folder.resolve()), state=state, sha256=content.hexdigest()))
    return content.hexdigest()


def _note_of(folder: Path, cache: Path) -> Path:
    resolved = folder.resolve()
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()
    return cache / 'hashes' / f'{resolved.name}-{digest[:24]}.json'


def _read_note(note: Path) -> dict:
    try:
        return read_json(note) or {}
    except ValueError as error:
        MMLogger.get_current_instance().warning(f'{error}; it is written anew')
        return {}


def _state(folder: Path, names: Sequence[str]) -> str:
    """Digest of names, sizes and modification times, which differs if files may have changed."""
    digest = hashlib.sha256()
    for name, found in zip(names, _threaded(os.stat, folder, names, 'look at'), strict=True):
        digest.update(f'{name}\0{found.st_size}\0{found.st_mtime_ns}\0'.encode())
    return digest.hexdigest()


def _threaded(function: Callable[[Path], T], folder: Path, names: Sequence[str], what: str) -> Iterator[T]:
    """Results of `function` for every file, in order, with a progress bar."""
    progress = tqdm(total=len(names), desc=f'{what} {folder.name}', unit='image', leave=False, delay=2)
    with progress, ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), _BLOCK):
            for result in pool.map(function, [folder / name for name in names[start : start + _BLOCK]]):
                yield result
                progress.update()
