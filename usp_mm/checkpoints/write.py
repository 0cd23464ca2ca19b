"""Writing of converted checkpoints, completely or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from usp_mm.fileio.atomic import check_free_space, restore_folder, write_folder, write_json, write_whole
from usp_mm.fileio.checksums import save_safetensors
from usp_mm.fileio.weights import PICKLES, SAFE

from .conversion_data import Entries
from .diffusers_dit import WEIGHTS, transformer_config


def check_out(out: Path, source: Path, target: str, force: bool) -> None:
    """Check the output path before anything is read.

    Raises:
        ValueError: The suffix does not fit the target, or `out` is the source or a folder that contains it.
        FileNotFoundError: The parent folder of `out` does not exist.
        FileExistsError: `out` exists, and either `force` is not set or `out` is not a checkpoint of this format.
    """
    endings = {'diffusers': ('',), 'safetensors': (SAFE,)}.get(target, (*PICKLES, SAFE))
    if target != 'diffusers' and out.suffix not in endings:
        raise ValueError(f"'{out}': {target} is written to {' or '.join(endings)}, not to '{out.suffix}'")
    if target == 'diffusers' and out.suffix in (*PICKLES, SAFE):
        raise ValueError(f"'{out}': diffusers is written to a folder, not to a {out.suffix} file")
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"'{out}' is the file to convert: choose another name for the result")
    if out.resolve() in source.resolve().parents:
        raise ValueError(f"'{out}' holds '{source}', which is to be converted: choose another name for the result")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"folder '{out.parent}' does not exist: create it first")
    restore_folder(out)
    if not out.exists() or (target == 'diffusers' and out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise FileExistsError(f"'{out}' exists: choose another name, or replace it with --force (force=True)")
    replaceable = out.is_file() if target != 'diffusers' else (out / 'model_index.json').is_file()
    if not replaceable:
        raise FileExistsError(f"'{out}' exists and is no {target} checkpoint: it is not replaced, choose another name")


def write_file(out: Path, sets: dict[str, Entries], extra: dict[str, Any], container: str | None) -> None:
    """Write flat weights or two sets of weights to one file.

    Args:
        out: The file; its suffix decides between safetensors and pickle.
        sets: '' -> flat weights, or 'model' and 'ema' -> the weights of each set.
        extra: Further entries of a pickle.
        container: Key of flat weights in a pickle; None makes them the content of the file.

    Raises:
        ValueError: There are two sets for a safetensors file.
        OSError: There is too little disk space, found before or while writing.
    """
    if out.suffix == SAFE and len(sets) > 1:
        raise ValueError(
            f"'{out}': a safetensors file holds one of {' and '.join(sets)} under these names: choose with weights"
        )
    tensors = {which: {name: own(entry.value) for name, entry in entries.items()} for which, entries in sets.items()}
    every = [x for weights in tensors.values() for x in weights.values()]
    once = {x.untyped_storage().data_ptr(): x for x in every}.values()  # a pickle saves a tensor with two names only once
    check_free_space(out.absolute().parent, sum(x.nbytes for x in (every if out.suffix == SAFE else once)))
    with _explained(out), write_whole(out) as file:
        if out.suffix == SAFE:
            save_safe(next(iter(tensors.values())), Path(file.name))
        elif container is None and '' in tensors:
            torch.save(tensors[''], file)
        else:
            torch.save({which or container: weights for which, weights in tensors.items()} | extra, file)


def own(value: Tensor) -> Tensor:
    """The tensor, copied if it is not contiguous or part of a larger storage, so that nothing else is saved with it."""
    if value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes:
        return value
    return value.clone(memory_format=torch.contiguous_format)


def save_safe(weights: dict[str, Tensor], path: Path) -> None:
    """Save to safetensors, which do not allow shared storage: tensors that share a storage are copied."""
    seen: set[int] = set()
    apart = {}
    for name, value in weights.items():
        address = value.untyped_storage().data_ptr()
        apart[name] = value.clone() if address in seen else value
        seen.add(address)
    save_safetensors(apart, path)


def write_dit_pipeline(out: Path, entries: Entries, official: Entries, facts: dict[str, Any], vae: Path | None) -> None:
    """Write a `DiTPipeline` folder with transformer, the DDIM scheduler of facebook/DiT-XL-2-256 and, if given, the VAE.

    Args:
        out: The folder.
        entries: Weights under diffusers' names.
        official: The same weights under official names.
        facts: See `Checkpoint.facts`.
        vae: Folder of an AutoencoderKL; None writes no VAE.

    Raises:
        ValueError: The network does not fit diffusers' class, or the VAE has another number of latent channels.
    """
    import diffusers

    classes = facts.get('dataset_meta', {}).get('classes') or ()
    config = transformer_config(official, facts.get('num_heads'), facts.get('num_classes'), len(classes))
    network: Any  # type checkers see diffusers' stand-ins for missing dependencies
    scheduler: Any
    with torch.device('meta'):
        network = diffusers.DiTTransformer2DModel(**config)
    _check_fit(entries, network.state_dict())
    vae_network = None if vae is None else _load_vae(vae, config['in_channels'])
    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule='linear', clip_sample=False)
    index: dict[str, Any] = {
        '_class_name': 'DiTPipeline',
        '_diffusers_version': diffusers.__version__,
        'transformer': ['diffusers', 'DiTTransformer2DModel'],
        'scheduler': ['diffusers', 'DDIMScheduler'],
        'vae': ['diffusers', 'AutoencoderKL'] if vae_network is not None else [None, None],
    }
    if classes:
        index['id2label'] = {str(i): str(name) for i, name in enumerate(classes)}
    weights = {name: own(entry.value) for name, entry in entries.items()}
    check_free_space(out.absolute().parent, sum(x.nbytes for x in weights.values()))
    with _explained(out), write_folder(out, replace=True) as folder:
        network.save_config(folder / 'transformer')
        save_safe(weights, folder / 'transformer' / f'{WEIGHTS}.safetensors')
        scheduler.save_pretrained(folder / 'scheduler')
        if vae_network is not None:
            vae_network.save_pretrained(folder / 'vae')
        write_json(folder / 'model_index.json', index)


def _check_fit(entries: Entries, expected: dict[str, Tensor]) -> None:
    found = {name: tuple(entry.value.shape) for name, entry in entries.items()}
    wanted = {name: tuple(value.shape) for name, value in expected.items()}
    if found != wanted:
        differ = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        shapes = ', '.join(
            f'{name} {found.get(name, "missing")} instead of {wanted.get(name, "nothing")}' for name in differ[:4]
        )
        raise ValueError(f"{len(differ)} tensors do not fit diffusers' DiT of this size: {shapes}")


def _load_vae(path: Path, channels: int) -> Any:
    from usp_mm.vaes.sd import load_network, read_config

    obtain = 'give the folder of a diffusers AutoencoderKL'
    config, arguments = read_config(str(path), obtain)
    if config.get('latent_channels', 4) != channels:
        raise ValueError(f"VAE '{path}' has {config.get('latent_channels', 4)} latent channels, the network {channels}")
    return load_network(str(path), arguments, obtain)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn the errors with which torch and safetensors report a failed write into an OSError."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"'{out}' can't be written, is the disk or your quota full? ({reason})") from error
