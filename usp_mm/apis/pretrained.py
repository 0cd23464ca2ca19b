"""`usp_mm.from_pretrained`: load a trained model from a folder, a checkpoint or the hub."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from usp_mm.checkpoints.model_config import Given
from usp_mm.fileio.addresses import hub_address, hub_file, hub_folder, hub_listing, is_address, local_file

from .encoder import Encoder
from .generator import Generator
from .sources import (
    CONFIG,
    PATTERNS,
    SEGMENTOR,
    WEIGHTS,
    Source,
    build,
    folder_of_run,
    prepare_source,
    read_file,
    read_foreign,
    read_model_folder,
    vae_given,
)

if TYPE_CHECKING:
    from .segmentor import Segmentor

_ON_THE_HUB = re.compile(r'[\w.-]+/[\w.-]+(@[^/]+)?(/.+)?')


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    config: str | Path | Config | None = None,
    weights: str | None = None,
    vae: str | Path | Mapping[str, Any] | None = None,
    load_vae: bool = True,
    kind: str | None = None,
    arch: str | Mapping[str, int] | None = None,
    num_classes: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    allow_other_vae: bool = False,
) -> 'Encoder | Generator | Segmentor':
    """Load a trained model for inference.

    Pretraining models and classifiers are an `Encoder`, DiT and SiT a `Generator`, and segmentors a `Segmentor`.

    Nothing that is downloaded is executed: weights are read as data, and so is the config beside or inside them.

    Args:
        source: A model folder (from `usp export` or `save_pretrained`), the work folder of a training with one in it, or a
            checkpoint of this package or of another project (official USP, MAE, timm, DiT, SiT, REPA, LightningDiT, a folder
            of diffusers), which is converted. A path, or `owner/name` or `owner/name/file` on the hub, `hf://…` or
            `https://…`. Local is what exists, and what begins with '.', '/' or '~', or with a folder that exists.
        revision: Branch, tag or commit on the hub.
        device: Device of the model; by default the GPU if there is one, else the CPU.
        config: Config for a checkpoint of this package; by default the one stored in it.
        weights: Weights of a generator: 'ema' (the default if there are averaged ones), 'model' or 'both'.
        vae: The VAE, if it is not the one that the config names: a preset of `usp_mm.presets.VAES`, a path or hub id,
            or a dict of `name`, `path`, `stats`, `dtype`.
        load_vae: Whether to load the VAE's weights. If False, the model only takes and returns latents.
        kind: Kind of another project's file, a key of `usp_mm.checkpoints.KINDS`, if its names leave it open (DiT or SiT).
        arch: Architecture of another project's network that is not a preset, such as dict(num_heads=6).
        num_classes: Number of classes of another project's generator without a row for "no class".
        cfg_options: Settings of the config to override, such as {'model.sampler.num_steps': 50}.
        allow_other_vae: Only warn, instead of refusing, if the VAE is not the one with which the model was trained.

    Raises:
        FileNotFoundError: The source does not exist.
        ConnectionError: A URL cannot be reached and there is no local copy.
        ValueError: The source is not a model or is of another kind, or the message names an argument that is needed.
        ImportError: A segmentor needs mmsegmentation, which is not installed.
    """
    where = folder_of_run(_fetched(source, revision))
    given = Given(arch, vae_given(vae).get('name'), num_classes)
    if where.is_file():
        found = read_file(where, config, kind, given, weights)
    elif (where / CONFIG).is_file():
        found = read_model_folder(where, config)
    elif (where / 'config.json').is_file() or (where / 'transformer').is_dir():
        found = read_foreign(where, kind, given, weights)
    else:
        raise FileNotFoundError(_contents_error(source, where))
    found.where = str(source)
    prepare_source(found, weights, vae, load_vae, cfg_options)
    return _built(found, device, allow_other_vae)


def _built(found: Source, device: str | torch.device | None, allow_other_vae: bool) -> 'Encoder | Generator | Segmentor':
    """Build the model, with the source's weights, which the source then gives up."""
    if found.cfg['model']['type'] == SEGMENTOR:
        from .segmentor import Segmentor

        segmentor = Segmentor.of(found, None if device is None else str(device), allow_other_vae)
        found.weights = {}
        return segmentor
    model = build(found, allow_other_vae).to(device or get_device())
    found.weights = {}  # the model has its own copy
    return Generator(model, found) if 'denoiser' in found.cfg['model'] else Encoder(model, found)


def _fetched(source: str | Path, revision: str | None) -> Path:
    """Local path of the file or folder, which is downloaded if necessary."""
    text = str(source)
    if not text.startswith('hf:'):
        path = Path(source).expanduser()
        if is_address(text) or path.exists():
            if revision is not None:
                raise ValueError(f"revision='{revision}' is of the hub, and '{source}' is not there: leave it out")
            return local_file(text) if is_address(text) else path
        _check_may_be_on_the_hub(source)
    address = hub_address(re.sub('^hf:/+', '', text), revision)
    try:
        return hub_file(address) if address.file else hub_folder(address, PATTERNS)
    except (FileNotFoundError, ConnectionError) as error:
        if text.startswith('hf:'):
            raise
        raise type(error)(f"'{source}' is no file or folder here, and on the hub: {error}") from error


def _check_may_be_on_the_hub(source: str | Path) -> None:
    """Raise a FileNotFoundError, with what lies nearby, if a source that is not here is a local path all the same."""
    text, near = str(source), Path(source).expanduser().parent
    while not near.is_dir() and near != near.parent:
        near = near.parent
    there = f"'{near}' has {_shown(path.name for path in near.iterdir()) or 'nothing in it'}"
    if not isinstance(source, str) or text.startswith(('.', '/', '~')) or not _ON_THE_HUB.fullmatch(text):
        raise FileNotFoundError(
            f"'{source}' is no file or folder here, and no id on the hub (owner/name or owner/name/file): {there}"
        )
    if Path(text.partition('/')[0]).is_dir():
        raise FileNotFoundError(f"'{source}' is no file or folder here: {there}; of the hub it would be hf://{source}")


def _shown(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ', '.join(ordered[:8]) + (', …' if len(ordered) > 8 else '')


def _contents_error(source: str | Path, folder: Path) -> str:
    """What to pass instead of a folder that is not a model folder."""
    on_hub = not Path(source).exists()
    if on_hub:
        address = hub_address(re.sub('^hf:/+', '', str(source)))
        names = hub_listing(address)
    else:
        names = [path.name for path in folder.iterdir()]
    shown = _shown(names)
    expected = f'a model folder ({CONFIG}, {WEIGHTS}) or one of diffusers'
    how = 'give one of its files, owner/name/FILE' if on_hub else 'give one of its files'
    return f"'{source}' is not {expected}: {how} ({shown or 'it is empty'})"
