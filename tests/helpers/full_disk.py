"""A disk that gets full while one file is written."""

from pathlib import Path
from typing import BinaryIO

import pytest

from usp_mm.fileio import atomic


def fill_disk_at(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let a device that is always full stand in for the temporary file of the file `name`."""
    create = atomic._create

    def create_or_fill(path: Path) -> BinaryIO:
        return open('/dev/full', 'wb') if path.name.startswith(f'.{name}.') else create(path)

    patch.setattr(atomic, '_create', create_or_fill)
