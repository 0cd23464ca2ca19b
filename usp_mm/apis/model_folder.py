"""Write a model folder: config, weights, known facts and a model card. The folder is written completely or not at all."""

import copy
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.atomic import check_free_space, sha256, write_folder, write_json
from usp_mm.fileio.checksums import save_safetensors
from usp_mm.presets import VAES
from usp_mm.vaes.build import read_stats
from usp_mm.vaes.settings import vae_settings
from usp_mm.version import __version__

from .config_data import dump_config
from .model_card import model_card
from .sources import CONFIG, HERE, INFO, STATS, WEIGHTS, Source, vae_part

_LIBRARIES = ('torch', 'mmengine', 'mmpretrain', 'diffusers')
#: Of a run, and of this machine.
_OF_A_RUN = ('work_dir', 'load_from', 'resume', 'launcher')
_VAE_FILES = ('config.json', 'diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.bin')
_PICTURE = 'picture.png'


def write_model_folder(
    out: Path,
    source: Source,
    model: nn.Module,
    *,
    name: str | None = None,
    numbers: Mapping[str, Any] | None = None,
    picture: str | Path | Image.Image | None = None,
    license: str | None = None,
    include_vae: bool | None = None,
) -> None:
    """Write a model folder.

    Args:
        out: A folder that does not exist or is empty.
        source: What the model was built from.
        model: Model whose weights are all written.
        name: Id on the hub, for the card.
        numbers: Measured results for the card, such as {'top-1 accuracy': 83.2}.
        picture: Picture for the card, a file or an image.
        license: License of the weights, as the hub names it, such as 'cc-by-nc-4.0'.
        include_vae: Whether to copy the VAE too, from its local folder or file. By default only preset 'tiny' is
            copied, which is not available elsewhere.

    Raises:
        FileExistsError: `out` is not empty.
        ValueError: The VAE to include has no local copy, or the picture is not an image.
        OSError: The disk does not have enough space.
    """
    check_absent(out)
    image = None if picture is None else _picture(picture)
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    check_free_space(out, sum(value.nbytes for value in weights.values()))
    cfg = {key: value for key, value in source.cfg.items() if key not in _OF_A_RUN}
    cfg['model'] = copy.deepcopy(cfg['model'])
    part = vae_part(cfg['model'])
    part.pop('load_vae', None)
    vae = part['vae'] = vae_settings(part.get('vae'))
    vae.pop('load_weights', None)
    with write_folder(out) as folder:
        if include_vae or (include_vae is None and vae['name'] == 'tiny'):
            vae['path'] = f'{HERE}/{_copy_vae(vae.get("path"), vae["name"], folder)}'
        if vae.get('stats') is not None:
            mean, std = read_stats(vae['stats'])
            write_json(folder / STATS, dict(latent_mean=mean, latent_std=std))
            vae['stats'] = f'{HERE}/{STATS}'
        (folder / CONFIG).write_text(dump_config(cfg))
        save_safetensors(weights, folder / WEIGHTS)
        info = _facts(source, model, sha256(folder / WEIGHTS))
        write_json(folder / INFO, info)
        if image is not None:
            image.save(folder / _PICTURE)
        card = model_card(name or out.name, cfg, info, dict(numbers or {}), _PICTURE if image else None, license)
        (folder / 'README.md').write_text(card)


def check_absent(out: Path) -> None:
    """Raise FileExistsError if writing a folder would replace something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"'{out}' exists and is not an empty folder: choose another name")


def _picture(picture: str | Path | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert('RGB')
    from usp_mm.images import load_image

    return load_image(picture)


def _facts(source: Source, model: nn.Module, digest: str) -> dict[str, Any]:
    """The content of `run_info.json`; a model from a folder keeps the facts stored there."""
    facts = {
        'model': source.cfg['model']['type'],
        **source.facts,
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'classes': None if source.classes is None else list(source.classes),
        'vae': None if source.vae is None else dict(source.vae),
        'weights_sha256': digest,
        'versions': dict(python=platform.python_version(), usp_mm=__version__, **_versions()),
    }
    if source.file is not None and source.file.name != WEIGHTS:
        facts |= dict(checkpoint=source.file.name, checkpoint_sha256=sha256(source.file))
    return facts


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _copy_vae(path: str | None, preset: str, folder: Path) -> str:
    """Copy the VAE into `folder` and return the name of the copy."""
    if path is None or ('://' not in path and not Path(path).exists()):
        wanted = f"'{VAES[preset]['source']}'"
        raise ValueError(f"the VAE '{preset}' can only be included from a local copy: give vae=PATH, that of {wanted}")
    local = local_file(path)
    if local.is_file():
        shutil.copyfile(local, folder / f'vae{local.suffix}')
        return f'vae{local.suffix}'
    local = local if (local / 'config.json').is_file() else local / 'vae'
    (folder / 'vae').mkdir()
    for name in _VAE_FILES:
        if (local / name).is_file() and not (name.endswith('.bin') and (folder / 'vae' / _VAE_FILES[1]).exists()):
            shutil.copyfile(local / name, folder / 'vae' / name)
    return 'vae'
