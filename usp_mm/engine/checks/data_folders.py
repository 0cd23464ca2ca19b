"""Check that the data of a run are there."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.config import Config
from mmengine.utils import is_abs

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
            folder, kind = dataset.get('data_root'), _name(dataset.get('type'))
            if not isinstance(folder, str):
                continue
            if kind == 'LatentCacheDataset':
                read_manifest(Path(folder).expanduser())
            elif kind in IMAGES:
                _check_images(_images(folder, dataset.get('data_prefix')), key)


#: Data sets whose images are in the folder `data_prefix` of `data_root`.
IMAGES = ('ImageFolder', 'ADE20KFolder', 'DemoScenes', 'DemoEmojiScenes')


def _datasets(loader: Any) -> Iterator[Any]:
    for one in loader if isinstance(loader, list | tuple) else [loader]:
        yield from dataset_configs(one.get('dataset') if isinstance(one, dict) else None)


def _name(kind: Any) -> str:
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def _images(root: str, prefix: Any) -> str:
    """The folder of the images, as MMEngine's `BaseDataset` joins it; mmpretrain's expands '~' in a prefix that is a text."""
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path', prefix.get('img'))
    elif isinstance(prefix, str):
        prefix = os.path.expanduser(prefix)
    if not isinstance(prefix, str) or not prefix:
        return root
    return prefix if is_abs(prefix) else str(fileio.join_path(root, prefix))


def _check_images(folder: str, loader: str) -> None:
    if '://' not in folder and not fileio.isdir(folder):
        raise FileNotFoundError(
            f"image folder '{folder}' of {loader} does not exist: check data_root and data_prefix of its data set"
        )
