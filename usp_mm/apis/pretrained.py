"""`usp_mm.from_pretrained`: a trained model from wherever it is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from usp_mm.addresses import hub_address, hub_file, hub_folder, hub_listing, is_address, local_file
from usp_mm.checkpoints.model_config import Given

from .encoder import Encoder
from .generator import Generator
from .sources import CONFIG, PATTERNS, WEIGHTS, build, prepare, read_file, read_folder, read_foreign, vae_given

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
) -> Encoder | Generator:
    """A trained model, ready for use: an `Encoder` of pretraining and classifiers, a `Generator` of DiT and SiT.

    Nothing that is fetched is run: weights are read as data, and so is the config that lies beside them or in them.

    Args:
        source: a model folder (`usp export`, `save_pretrained`); a checkpoint of this package or of another project (official
            USP, MAE, timm, DiT, SiT, REPA, LightningDiT, a folder of diffusers), which is converted on the way; or where one
            is: `owner/name` or `owner/name/file` on the hub, `hf://…`, `https://…`. What exists here goes before the hub.
        revision: of the hub: branch, tag or commit.
        device: by default the GPU, else the CPU.
        config: of a checkpoint of this package; by default the one in it.
        weights: of a generator, 'ema' (the default, if there are averaged ones), 'model' or 'both'.
        vae: the autoencoder, where it is not the one that the config names: a preset of `usp_mm.presets.VAES`, a path or hub
            id, or a dict of `name`, `path`, `stats`, `dtype`.
        load_vae: False leaves its weights out: the model then takes and gives latents alone.
        kind: of another project's file, a key of `usp_mm.checkpoints.KINDS`, where names leave it open (DiT or SiT).
        arch: of another project's network that is no preset, such as dict(num_heads=6).
        num_classes: of another project's generator without a "no class" row.
        cfg_options: settings of the config to override: {'model.sampler.num_steps': 50}.
        allow_other_vae: warn of a VAE that is not the one it was trained with, and go on.

    Raises:
        FileNotFoundError: nothing there.
        ConnectionError: an address that can't be reached, and of which there is no copy.
        ValueError: no model, one of another kind, or a fact that only an argument can tell; names it.
    """
    where = _fetched(source, revision)
    given = Given(arch, vae_given(vae).get('name'), num_classes)
    if where.is_file():
        found = read_file(where, config, kind, given, weights)
    elif (where / CONFIG).is_file():
        found = read_folder(where, config)
    elif (where / 'config.json').is_file() or (where / 'transformer').is_dir():
        found = read_foreign(where, kind, given, weights)
    else:
        raise FileNotFoundError(_told_contents(source, where))
    found.where = str(source)
    prepare(found, weights, vae, load_vae, cfg_options)
    model = build(found, allow_other_vae).to(device or get_device())
    found.weights = {}  # the model holds them
    if 'denoiser' not in found.cfg['model']:
        return Encoder(model, found)
    return Generator(model, found)


def _fetched(source: str | Path, revision: str | None) -> Path:
    """The file or folder on this machine."""
    text = str(source)
    if not text.startswith('hf:'):
        path = Path(source).expanduser()
        if is_address(text) or path.exists():
            if revision is not None:
                raise ValueError(f"revision='{revision}' is of the hub, and '{source}' is not there: leave it out")
            return local_file(text) if is_address(text) else path
        if not isinstance(source, str) or not _ON_THE_HUB.fullmatch(text):
            raise FileNotFoundError(
                f"'{source}' is no file or folder here, and no id on the hub (owner/name or owner/name/file)"
            )
    address = hub_address(re.sub('^hf:/+', '', text), revision)
    try:
        return hub_file(address) if address.file else hub_folder(address, PATTERNS)
    except (FileNotFoundError, ConnectionError) as error:
        if text.startswith('hf:'):
            raise
        raise type(error)(f"'{source}' is no file or folder here, and on the hub: {error}") from error


def _told_contents(source: str | Path, folder: Path) -> str:
    """What to give in place of a folder that is none of ours."""
    on_hub = not Path(source).exists()
    if on_hub:
        address = hub_address(re.sub('^hf:/+', '', str(source)))
        names = hub_listing(address)
    else:
        names = sorted(path.name for path in folder.iterdir())
    shown = ', '.join(names[:8]) + (', …' if len(names) > 8 else '')
    expected = f'a model folder ({CONFIG}, {WEIGHTS}) or one of diffusers'
    how = 'give one of its files, owner/name/FILE' if on_hub else 'give one of its files'
    return f"'{source}' is not {expected}: {how} ({shown or 'it is empty'})"
