"""A generator, and where it comes from."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn


@dataclass(frozen=True, eq=False)
class LoadedGenerator:
    """What samples are drawn of and described with; nothing but `model` is known of one that was built or trained here.

    Attributes:
        model: a `LatentDiffusionGenerator`, whose attributes can still be had of this, with a warning.
        config: it was built of.
        checkpoint: file that its weights were read from.
        classes: names of its classes, from 0.
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
        """The file that holds the weights; None once something has written to them since, as training does."""
        return self.checkpoint if self._written == _writes(self.model) else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_') or name == 'model':  # nothing is here yet, as while it is copied
            raise AttributeError(name)
        value = getattr(self.model, name)
        told = f'load_generator returns a LoadedGenerator: take `{name}` of its `model`, this goes in the next release'
        warnings.warn(told, FutureWarning, stacklevel=2)
        return value


def as_loaded(generator: LoadedGenerator | nn.Module) -> LoadedGenerator:
    """What `load_generator` returned as it is, and any other generator with nothing known of it."""
    return generator if isinstance(generator, LoadedGenerator) else LoadedGenerator(generator)


def _writes(model: nn.Module) -> int:
    """How often the weights were written to, as autograd counts."""
    return sum(tensor._version for tensor in model.parameters())
