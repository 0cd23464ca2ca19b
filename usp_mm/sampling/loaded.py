"""A generator together with its config, checkpoint and class names."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn


@dataclass(frozen=True, eq=False)
class LoadedGenerator:
    """A generator and what is known of it; for one that was built or trained in this process, only `model` is known.

    Attributes:
        model: A `LatentDiffusionGenerator`. Its attributes can also be read from this object, with a warning.
        config: Config from which the model was built.
        checkpoint: File from which its weights were read.
        classes: Names of its classes, in the order of their labels.
    """

    model: Any
    config: Config | None = None
    checkpoint: Path | None = None
    classes: Sequence[str] | None = None
    _written: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, '_written', _writes(self.model))

    @property
    def weights(self) -> Path | None:
        """The file with the weights; None if they were changed after loading, as in training."""
        return self.checkpoint if self._written == _writes(self.model) else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_') or name == 'model':  # not set yet, for example during a copy
            raise AttributeError(name)
        value = getattr(self.model, name)
        message = f'load_generator returns a LoadedGenerator: take `{name}` of its `model`, this goes in the next release'
        warnings.warn(message, FutureWarning, stacklevel=2)
        return value


def as_loaded(generator: LoadedGenerator | nn.Module) -> LoadedGenerator:
    """Return a LoadedGenerator as it is, and wrap any other generator, of which nothing else is known."""
    return generator if isinstance(generator, LoadedGenerator) else LoadedGenerator(generator)


def _writes(model: nn.Module) -> int:
    """How often the weights were modified, as counted by autograd."""
    return sum(tensor._version for tensor in model.parameters())
