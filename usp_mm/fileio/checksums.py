"""Find damaged files: the checksums that a checkpoint carries, and those that this package adds to safetensors.

A check costs about 0.3 s per GB for a checkpoint of torch.save (the CRC-32 of its zip archive) and 0.7 s per GB for safetensors
(SHA-256), measured on one core with the file in the page cache; torch.load takes about 1.1 s per GB there.
"""

import hashlib
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from usp_mm.fileio.atomic import scratch_folder, sha256

#: Key of the content hash in the metadata of safetensors.
HASH = 'sha256'
_ZIP = b'PK\x03\x04'


def is_zip(path: Path) -> bool:
    """Whether torch.load takes a file for a zip archive."""
    with path.open('rb') as file:
        return file.read(len(_ZIP)) == _ZIP


def is_stored(path: Path) -> bool:
    """Whether nothing in a zip archive is compressed, so that its tensors can be mapped into memory."""
    with zipfile.ZipFile(path) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def damaged_member(path: Path) -> str | None:
    """Name of the first member of a zip archive whose CRC-32 differs, or None.

    An archive that was written under `torch.serialization.set_crc32_options(False)` has no checksums and passes.

    Raises:
        zipfile.BadZipFile, zlib.error, RuntimeError, EOFError: The archive is broken.
    """
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() if any(member.CRC for member in archive.infolist()) else None


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over sorted names, dtypes, shapes and bytes of tensors on the CPU, 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f'{name}\0{tensor.dtype}\0{list(tensor.shape)}\0'.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors, none of which share storage, and their hash to safetensors, synced and with the umask's mode."""
    path.touch()
    noted = {'format': 'pt', HASH: content_hash(tensors)}
    with scratch_folder(path) as scratch:  # save_file writes to a name of its own first, which a kill would leave for ever
        whole = scratch / 'whole'
        save_file(tensors, whole, metadata=noted)
        whole.chmod(path.stat().st_mode)  # save_file makes a file that only its owner can read
        with whole.open('r+b') as file:
            _order_metadata(file, noted)
            file.flush()
            os.fsync(file.fileno())
        whole.replace(path)


def _order_metadata(file: BinaryIO, noted: Mapping[str, str]) -> None:
    """Put two entries of safetensors' metadata into the order of `noted`: save_file draws it, and bytes are to be the same."""
    (size,) = struct.unpack('<Q', file.read(8))
    first, second = (f'"{key}":"{value}"'.encode() for key, value in noted.items())
    header = file.read(size).replace(second + b',' + first, first + b',' + second)
    file.seek(8)
    file.write(header)


def is_intact(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors read from safetensors have the hash that `save_safetensors` noted; True if none is noted."""
    with safe_open(path, framework='pt') as file:
        noted = (file.metadata() or {}).get(HASH)
    return noted is None or content_hash(tensors) == noted


def check_sha256(path: Path, noted: str, where: str) -> None:
    """Compare the SHA-256 of a file with the one that is noted in the file `where`.

    Raises:
        ValueError: They differ.
    """
    found = sha256(path)
    if found != noted:
        raise ValueError(
            f"'{path}' is damaged or another file: its SHA-256 is {found[:16]}…, {where} says {str(noted)[:16]}…: copy it again"
        )
