"""What all golden files are made with: sizes, weights and inputs as functions of names, and the official modules."""

import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Top-level names that the official checkouts share: forgotten between them.
CLASHING = ('models', 'util', 'vae', 'models_mae', 'models_vit', 'models_dit', 'diffusion', 'transport', 'loss', 'samplers')
TABLES = ('pos_embed', 'decoder_pos_embed')


@dataclass
class Recorder:
    """Where the official code is, where the numbers go, and what they are made with.

    Attributes:
        ref: folder with the checkouts.
        out: folder for the files.
        salt: added to the seed of every weight and input; 0 in the files of the tests.
        wide: another size of everything, for numbers to hold out.
        names: kind of network -> official name -> shape, filled in passing.
    """

    ref: Path
    out: Path
    salt: int = 0
    wide: bool = False
    names: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    @property
    def arch(self) -> tuple[int, int, int]:
        """Width, blocks, heads."""
        return (64, 3, 4) if self.wide else (48, 2, 3)

    @property
    def num_classes(self) -> int:
        return 7 if self.wide else 10

    def random(self, name: str) -> np.random.RandomState:
        return np.random.RandomState((zlib.crc32(name.encode()) + self.salt) % 2**32)

    def weight(self, name: str, shape: tuple[int, ...], deviation: float = 0.05) -> Tensor:
        """1 + 0.1·normal for the weights of norms, `deviation`·normal for everything else."""
        draw = self.random(name).standard_normal(shape)
        is_norm = name.endswith('.weight') and 'norm' in name.split('.')[-2]
        return torch.from_numpy((1 + 0.1 * draw if is_norm else deviation * draw).astype('float32'))

    def input(self, tag: str, *shape: int) -> Tensor:
        return torch.from_numpy(self.random(f'input:{tag}').standard_normal(shape).astype('float32'))

    def fill(self, module: nn.Module, kind: str | None = None, deviation: float = 0.05, prefix: str = '') -> Any:
        """The module in eval mode, its weights filled by name, its position tables left as the official code made them.

        Args:
            kind: note its names and shapes under this one.
            prefix: of the module's names in a checkpoint.
        """
        state = module.state_dict()
        for name, value in state.items():
            if name not in TABLES and value.is_floating_point() and not name.endswith(('running_mean', 'running_var')):
                state[name] = self.weight(prefix + name, tuple(value.shape), deviation)
        module.load_state_dict(state)
        if kind is not None:
            self.names.setdefault(kind, {}).update({prefix + name: list(value.shape) for name, value in state.items()})
        return module.eval()

    def save(self, name: str, **arrays: Any) -> None:
        """Arrays and tensors as `name`.npz."""
        content = {
            key: value.detach().cpu().numpy() if torch.is_tensor(value) else np.asarray(value) for key, value in arrays.items()
        }
        np.savez_compressed(self.out / f'{name}.npz', **content)
        print(name, sum(array.nbytes for array in content.values()), 'bytes')

    def save_names(self) -> None:
        """names.json, one name a line."""
        kinds = []
        for kind, names in self.names.items():
            lines = ',\n'.join(f'  {json.dumps(name)}: {json.dumps(shape)}' for name, shape in names.items())
            kinds.append(f'{json.dumps(kind)}: {{\n{lines}\n}}')
        (self.out / 'names.json').write_text('{\n' + ',\n'.join(kinds) + '\n}\n')

    @contextmanager
    def importing(self, checkout: str) -> Iterator[None]:
        """Import from a checkout; modules of the same name from others are put aside.

        The official USP code replaces `numpy.float32`: undone in the end.
        """
        float32 = np.float32
        saved = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] in CLASHING}
        sys.path.insert(0, str(self.ref / checkout))
        try:
            yield
        finally:
            np.float32 = float32
            sys.path.remove(str(self.ref / checkout))
            for name in [name for name in sys.modules if name.split('.')[0] in CLASHING]:
                del sys.modules[name]
            sys.modules.update(saved)


@contextmanager
def drawing(function: str, draw: Callable[..., Tensor]) -> Iterator[None]:
    """`torch.function` replaced: official code draws its noise inside."""
    real = getattr(torch, function)
    setattr(torch, function, draw)
    try:
        yield
    finally:
        setattr(torch, function, real)
