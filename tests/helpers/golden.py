"""The official code's numbers, recorded in float32 on the CPU, and the weights they were recorded with."""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'
#: Kind of official network -> name -> shape, at the sizes of the golden numbers.
NAMES: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / 'names.json').read_text())


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of golden file `name` ('vae_kl16')."""
    with np.load(GOLDEN / f'{name}.npz', allow_pickle=False) as arrays:
        return dict(arrays)


def official_weights(kind: str, deviation: float = 0.05) -> dict[str, Tensor]:
    """The official state dict that the golden numbers of this kind were recorded with, tables included.

    Names and shapes come from tests/data/golden/names.json, not from this package: a parameter that is missing here, has a
    name of its own or another shape makes a strict load fail.

    Args:
        kind: a key of that file.
        deviation: of weights that belong to no norm; 0.1 in the files `strong_*`.
    """
    shapes = NAMES[kind]
    weights = golden_weights({name: shape for name, shape in shapes.items() if not name.endswith('pos_embed')}, deviation)
    tables = load('pretrain_kl16_c16s16_normpix' if kind == 'usp-pretrain-kl16' else 'pretrain_sdvae_c4s8_normpix')
    for name in shapes.keys() - weights.keys():
        table = torch.from_numpy(tables[name])
        weights[name] = table[:, -shapes[name][1] :]  # a generator's has no class token
        assert list(weights[name].shape) == shapes[name]
    return weights


def golden_weights(shapes: Mapping[str, Iterable[int]], deviation: float = 0.05) -> dict[str, Tensor]:
    """Official name -> float32 weight, a function of name and shape alone: the recipe the golden numbers were made with."""
    return {name: golden_weight(name, tuple(shape), deviation) for name, shape in shapes.items()}


def golden_weight(name: str, shape: tuple[int, ...], deviation: float = 0.05) -> Tensor:
    """The weight of one official name."""
    draw = np.random.RandomState(zlib.crc32(name.encode()) % 2**32).standard_normal(shape)
    *_, part, kind = ('', *name.split('.'))
    is_norm = kind == 'weight' and 'norm' in part
    return torch.from_numpy(np.asarray(1 + 0.1 * draw if is_norm else deviation * draw, dtype=np.float32))
