"""Check that results can be written, before the work that produces them starts."""

import os
from collections.abc import Sequence
from pathlib import Path


def check_file(path: str | Path | None, option: str, suffixes: Sequence[str] = (), make_folder: bool = True) -> None:
    """Refuse a file that could not be written.

    Args:
        path: The file to be written; None is accepted, for no file.
        option: Name of the command-line option for the message, such as '--out'.
        suffixes: Allowed suffixes in lower case; empty allows any.
        make_folder: Whether the tool creates missing parent folders.

    Raises:
        ValueError: The path has another suffix.
        FileNotFoundError: The parent folder does not exist, and `make_folder` is False.
        OSError: The path is a folder, one of its parents is a file, or the user has no permission to write there.
    """
    if path is None:
        return
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{option}: cannot write '{path}': it is a folder, name a file in it")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} '{path}' must end in {' or '.join(suffixes)}")
    if not make_folder and not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: cannot write '{path}': folder '{path.parent}' does not exist, create it first")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{option}: cannot write '{path}': the file is not yours to write")
    _check_writable(path.absolute().parent, path, option)


def check_folder(path: str | Path | None, option: str) -> None:
    """Refuse a folder that could not be created or written to, with the errors of `check_file`."""
    if path is not None:
        _check_writable(Path(path).absolute(), Path(path), option)


def _check_writable(folder: Path, path: Path, option: str) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{option}: cannot write '{path}': '{there}' is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{option}: cannot write '{path}': '{there}' is not yours to write in")


def check_counts(args: object, *names: str) -> None:
    """Raise a ValueError if an argument in `names` (such as 'batch_size' for `args.batch_size`) is below 1; None passes."""
    for name in names:
        value = getattr(args, name, None)
        if value is not None and value < 1:
            raise ValueError(f'--{name.replace("_", "-")} {value} must be 1 or more')
