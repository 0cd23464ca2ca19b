"""Errors of broken `.npz` files, which NumPy and zipfile report in a dozen ways, as one."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FAILURES = (
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError, ValueError, TypeError, KeyError, EOFError,
    OverflowError, RuntimeError, MemoryError, AttributeError,
)  # fmt: skip


@contextmanager
def explain_broken(path: Path) -> Iterator[None]:
    """Turn what reading an `.npz` in the block raises if it is broken into a ValueError of one line.

    Errors of the disk are left as they are, and so is a missing file.
    """
    try:
        yield
    except _FAILURES as error:
        raise ValueError(f'{path} is not a whole .npz file ({_line(error)}): fetch or write it again') from error
    except OSError as error:
        if error.filename is not None or error.errno not in (None, 22):  # 22: a place before the start of the file
            raise
        raise ValueError(f'{path} is not a whole .npz file ({_line(error)}): fetch or write it again') from error


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200] or type(error).__name__
