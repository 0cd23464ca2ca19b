"""Where a generator comes from, as far as it is known: beside the module, not on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from mmengine.config import Config
from torch import nn


@dataclass(frozen=True)
class Origin:
    """What samples are described with; nothing is known of a generator that was built or trained in this process.

    Attributes:
        config: it was built of.
        checkpoint: file of its weights.
        classes: names of its classes, from 0.
    """

    config: Config | None = None
    checkpoint: Path | None = None
    classes: Sequence[str] | None = None


_UNKNOWN = Origin()
_known: WeakKeyDictionary[nn.Module, tuple[Origin, int]] = WeakKeyDictionary()


def note_origin(model: nn.Module, origin: Origin) -> None:
    """Remember where a generator comes from, for as long as it lives and its weights are those it has now."""
    _known[model] = origin, _writes(model)


def origin_of(model: nn.Module) -> Origin:
    """What `note_origin` was told; no checkpoint once something has written to the weights, as training does."""
    origin, writes = _known.get(model, (_UNKNOWN, 0))
    if origin.checkpoint is not None and writes != _writes(model):
        return Origin(origin.config, None, origin.classes)
    return origin


def _writes(model: nn.Module) -> int:
    """How often the weights were written to, as autograd counts."""
    return sum(tensor._version for tensor in model.parameters())
