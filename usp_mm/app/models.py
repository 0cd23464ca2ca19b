"""Load the models of the demo, and list what each can do."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from usp_mm.apis import Encoder, Generator, from_pretrained
from usp_mm.engine.checkpointing.latest_checkpoint import named_checkpoint
from usp_mm.models import USP

if TYPE_CHECKING:  # importing it needs mmsegmentation
    from usp_mm.apis import Segmentor

_Kind = TypeVar('_Kind', Encoder, Generator)


class AppModels(NamedTuple):
    """Models by what they can do, each dict by the name that the demo shows.

    Attributes:
        restorers: Pretraining models, which restore masked pictures.
        classifiers: Encoders with a classification head.
        encoders: All encoders, which compute features.
        generators: Generators of pictures.
        segmentors: Segmentors.
    """

    restorers: dict[str, Encoder]
    classifiers: dict[str, Encoder]
    encoders: dict[str, Encoder]
    generators: dict[str, Generator]
    segmentors: 'dict[str, Segmentor]'


def load_models(sources: Sequence[str], device: str | None = None) -> AppModels:
    """Load each model folder, work folder of a training, checkpoint or address.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: A source is no model.
    """
    found = {name: load_model(source, device) for name, source in _names(sources).items()}
    encoders = _of_kind(found, Encoder)
    return AppModels(
        {name: one for name, one in encoders.items() if isinstance(one.model, USP)},
        {name: one for name, one in encoders.items() if one.classifier is not None},
        encoders, _of_kind(found, Generator),
        {name: one for name, one in found.items() if not isinstance(one, Encoder | Generator)},
    )  # fmt: skip


def load_model(source: str, device: str | None = None) -> 'Encoder | Generator | Segmentor':
    """Load one model.

    Args:
        source: What `usp_mm.from_pretrained` takes, or the work folder of a training: the folder with `last_checkpoint` and one
            config.
        device: Device of the model; by default the GPU if there is one, else the CPU.

    Raises:
        FileNotFoundError: The source does not exist.
        ValueError: The source is no model.
    """
    checkpoint = named_checkpoint(Path(source)) if len(list(Path(source).glob('*.py'))) == 1 else None
    return from_pretrained(checkpoint or source, device=device)


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Short names that differ -> the sources."""
    short = [source.rstrip('/').rpartition('/')[2] or source for source in sources]
    if repeated := next((source for source in sources if sources.count(source) > 1), None):
        raise ValueError(f"'{repeated}' is given twice: give each model once")
    return {name if short.count(name) == 1 else source: source for name, source in zip(short, sources, strict=True)}


def _of_kind(models: 'dict[str, Encoder | Generator | Segmentor]', kind: type[_Kind]) -> dict[str, _Kind]:
    return {name: one for name, one in models.items() if isinstance(one, kind)}
