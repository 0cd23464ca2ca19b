"""The official code's numbers, recorded in float32 on the CPU, and the weights they were recorded with."""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / 'data' / 'golden'


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of golden file `name` ('vae_kl16')."""
    with np.load(GOLDEN / f'{name}.npz', allow_pickle=False) as arrays:
        return dict(arrays)


def golden_weights(shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    """Official name -> float32 weight, a function of name and shape alone: the recipe the golden numbers were made with."""
    return {name: golden_weight(name, tuple(shape)) for name, shape in shapes.items()}


def golden_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight of one official name."""
    draw = np.random.RandomState(zlib.crc32(name.encode()) % 2**32).standard_normal(shape)
    *_, part, kind = ('', *name.split('.'))
    is_norm = kind == 'weight' and 'norm' in part
    return torch.from_numpy(np.asarray(1 + 0.1 * draw if is_norm else 0.05 * draw, dtype=np.float32))
