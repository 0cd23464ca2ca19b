"""Check that the data of a run are there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.config import Config

from usp_mm.datasets import dataset_configs
from usp_mm.datasets.latent_cache import read_manifest


def check_data_folders(cfg: Config, *loaders: str) -> None:
    """Look for the latent caches and image folders that a run will read, before its model is built and the VAE loaded.

    Args:
        cfg: The run's config.
        loaders: Keys of data loaders in it.

    Raises:
        FileNotFoundError: A folder does not exist, has no cache, or an unfinished one.
        ValueError: The manifest of a cache is not valid.
    """
    for key in loaders:
        for dataset in _datasets(cfg.get(key)):
            folder = dataset.get('data_root')
            if not isinstance(folder, str):
                continue
            kind = _name(dataset.get('type'))
            if kind == 'LatentCacheDataset':
                read_manifest(Path(folder).expanduser())
            elif kind in ('ImageFolder', 'ADE20KFolder'):
                _check_images(_images(folder, dataset.get('data_prefix')), key)


def _datasets(loader: Any) -> Iterator[Any]:
    for one in loader if isinstance(loader, list | tuple) else [loader]:
        yield from dataset_configs(one.get('dataset') if isinstance(one, dict) else None)


def _name(kind: Any) -> str:
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def _images(root: str, prefix: Any) -> str:
    """The folder of the images, as MMEngine's `BaseDataset` joins it."""
    inside = prefix.get('img_path') if isinstance(prefix, dict) else prefix
    return str(fileio.join_path(root, inside)) if isinstance(inside, str) and inside else root


def _check_images(folder: str, loader: str) -> None:
    if not fileio.isdir(str(Path(folder).expanduser()) if folder.startswith('~') else folder):
        raise FileNotFoundError(f"image folder '{folder}' of {loader} does not exist: set {loader}.dataset.data_root")
