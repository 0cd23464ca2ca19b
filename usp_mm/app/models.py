"""Load the models of the demo, and list what each can do."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from mmengine.config import Config

from usp_mm.apis import Encoder, Generator, from_pretrained
from usp_mm.apis.config_data import parse_config
from usp_mm.apis.segmentation import FileSegmentor, segmentor
from usp_mm.engine.latest_checkpoint import named_checkpoint
from usp_mm.models import USP

Model = Encoder | Generator | FileSegmentor
_Kind = TypeVar('_Kind', Encoder, Generator, FileSegmentor)
_SEGMENTOR = 'USPSegmentor'


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
    segmentors: dict[str, FileSegmentor]


def load_models(sources: Sequence[str], device: str | None = None) -> AppModels:
    """Load each model folder, work folder of a training, checkpoint or address.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: A source is no model.
    """
    found: dict[str, Model] = {name: load_model(source, device) for name, source in _names(sources).items()}
    encoders = _of_kind(found, Encoder)
    return AppModels(
        {name: one for name, one in encoders.items() if isinstance(one.model, USP)},
        {name: one for name, one in encoders.items() if one.classifier is not None},
        encoders, _of_kind(found, Generator), _of_kind(found, FileSegmentor),
    )  # fmt: skip


def load_model(source: str, device: str | None = None) -> Model:
    """Load one model.

    Args:
        source: What `usp_mm.from_pretrained` takes, or the work folder of a training: the folder with `last_checkpoint` and one
            config. A segmentor comes in such a folder, or in one with `config.py` and `model.safetensors`.
        device: Device of the model; by default the GPU if there is one, else the CPU.

    Raises:
        FileNotFoundError: The source does not exist.
        ValueError: The source is no model.
    """
    config, checkpoint = _files(Path(source))
    if config is None or checkpoint is None:
        return from_pretrained(source, device=device)
    values = parse_config(config.read_text(), config)
    if values.get('model', {}).get('type') == _SEGMENTOR:
        return segmentor(Config(values), checkpoint, device)
    return from_pretrained(checkpoint if (checkpoint.parent / 'last_checkpoint').exists() else source, device=device)


def _files(folder: Path) -> tuple[Path | None, Path | None]:
    """Config and checkpoint in a model folder or work folder; None if there is none."""
    if (folder / 'config.py').is_file() and (folder / 'model.safetensors').is_file():
        return folder / 'config.py', folder / 'model.safetensors'
    configs = list(folder.glob('*.py')) if (folder / 'last_checkpoint').is_file() else []
    if len(configs) != 1:
        return None, None
    return configs[0], named_checkpoint(folder)


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Short names that differ -> the sources."""
    short = [source.rstrip('/').rpartition('/')[2] or source for source in sources]
    if repeated := next((source for source in sources if sources.count(source) > 1), None):
        raise ValueError(f"'{repeated}' is given twice: give each model once")
    return {name if short.count(name) == 1 else source: source for name, source in zip(short, sources, strict=True)}


def _of_kind(models: dict[str, Model], kind: type[_Kind]) -> dict[str, _Kind]:
    return {name: one for name, one in models.items() if isinstance(one, kind)}
