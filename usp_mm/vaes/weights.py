"""Weights from a file, as data and never as code."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

PICKLES = ('.ckpt', '.pt', '.pth')
#: Where training frameworks put the weights in a checkpoint.
CONTAINERS = ('state_dict', 'model')


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor of a `.safetensors`, `.ckpt`, `.pt` or `.pth` file, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a broken one, or one that holds more than data.
    """
    path = Path(path)
    if path.suffix not in ('.safetensors', *PICKLES):
        raise ValueError(f"{path}: weights are read from .safetensors, .ckpt, .pt or .pth files, not from '{path.suffix}'")
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file')
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        return _tensors(torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)), path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'{path} is broken, or holds more than tensors and would have to run code to be read, which is refused: '
            f'save its state dict alone ({reason})'
        ) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint."""
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise ValueError(f'{path} holds no state dict: expected name -> tensor, plain or under {list(CONTAINERS)}')
    return content
