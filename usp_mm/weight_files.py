"""Checkpoints from files: the one reader, to which every file is data and never code."""

import hashlib
import re
import struct
import textwrap
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

SAFE = '.safetensors'
PICKLES = ('.ckpt', '.pt', '.pth')
#: Where training frameworks put the weights in a checkpoint.
CONTAINERS = ('state_dict', 'model')
#: What reading a pickle as data fails with; a broken file can fail anywhere in it.
_FAILURES = (
    UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, struct.error, OverflowError, zipfile.BadZipFile,
)  # fmt: skip
#: What torch says of a name, or of an instruction, that no data need.
_CODE = re.compile(
    r'(?:Unsupported|Trying to \w+ unsupported|Can only \w+ for) [^:]*?:? ?(?:GLOBAL )?([\w.]+)(?= was| whose|\.$|$)'
)
#: What this package's own guard says (`usp_mm.compat.history_buffer_method`).
_GUARDED = re.compile(r"(attribute '.+' of .+): only methods of HistoryBuffer")


def read_checkpoint(path: str | Path, map_location: Any = 'cpu', mmap: bool = False) -> dict[str, Any]:
    """All that is in a checkpoint: of a `.safetensors` file name -> tensor, on the CPU; of any other, what torch.save wrote.

    Args:
        map_location: torch.load's; of no effect on safetensors.
        mmap: leave the tensors in the file until they are used.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a broken file, one that would run code, or one that holds no dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file')
    try:
        if path.suffix == SAFE:
            return dict(load_file(path))
        mmap = mmap and zipfile.is_zipfile(path)
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        if 'deserialize object on' in str(error):
            raise ValueError(f"{path} holds tensors of a device that is not here: read it with map_location='cpu'") from error
        raise ValueError(f'{path} {_reason(error)}') from error
    except OSError as error:
        if error.filename is not None:  # not to be opened
            raise
        raise ValueError(f'{path} {_reason(error)}') from error  # cut short: torch seeks before its start
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a checkpoint: expected names and tensors')
    return content


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor of a `.safetensors`, `.ckpt`, `.pt` or `.pth` file, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a broken one, or one that holds more than data.
    """
    path = Path(path)
    if path.suffix not in (SAFE, *PICKLES):
        raise ValueError(f"{path}: weights are read from .safetensors, .ckpt, .pt or .pth files, not from '{path.suffix}'")
    return _tensors(read_checkpoint(path, mmap=True), path)


def weights_hash(network: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 over sorted names and weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def told_misfit(error: RuntimeError) -> str:
    """What a module's `load_state_dict` says of names and shapes, on one line."""
    lines = [textwrap.shorten(line, 300) for line in str(error).splitlines()]
    return '; '.join(lines[1:4] or lines)


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split())
    name = _CODE.search(text) or _GUARDED.search(text) if isinstance(error, UnpicklingError) else None
    if name:
        return (
            f'holds more than data ({name[1]}) and would have to run code to be read, which is refused: '
            'save its state dict alone'
        )
    if 'Unsupported operand' in text:
        return (
            'is broken, no checkpoint, or holds more than data, which is refused: copy it again, or save its state dict alone'
        )
    return f'is broken, cut short or no checkpoint: copy it again ({_told(error, text)})'


def _told(error: Exception, text: str) -> str:
    """The part of a long message that says something."""
    text = text.split('WeightsUnpickler error:')[-1].split('Please file an issue')[0].strip()
    return type(error).__name__ if isinstance(error, KeyError) or not text else text[:160]


def _tensors(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint."""
    for key in CONTAINERS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    if not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise ValueError(f'{path} holds no state dict: expected name -> tensor, plain or under {list(CONTAINERS)}')
    return content
