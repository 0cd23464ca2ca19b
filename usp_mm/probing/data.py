"""Labelled data for probes: folders of images and latent caches, read in batches or turned into features once.

Shape legend: N samples, D width.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from usp_mm.datasets import EpochIndex
from usp_mm.datasets.class_names import check_classes
from usp_mm.datasets.latent_cache import collate_latents
from usp_mm.datasets.latent_cache.manifest import MANIFEST, PLAN
from usp_mm.datasets.seeding import derive_seed
from usp_mm.files import sha256
from usp_mm.registry import DATASETS

from .features import FrozenModel


@dataclass(frozen=True)
class ProbeData:
    """One split.

    Attributes:
        path: its folder.
        cached: whether that is a latent cache.
        split: 0, training, or 1, validation.
        augmented: whether a sample looks different in each epoch.
        dataset: ImageFolder or LatentCacheDataset.
        pipeline: of images, as configured.
        workers: processes that load it; 0, this one.
    """

    path: Path
    cached: bool
    split: int
    augmented: bool
    dataset: Any
    pipeline: list[dict] | None = None
    workers: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self.dataset.CLASSES or ())

    def loader(self, batches: Sequence[Sequence[int]]) -> DataLoader:
        """The samples with these indices, collated."""
        collate = collate_latents if self.cached else default_collate
        return DataLoader(self.dataset, batch_sampler=batches, collate_fn=collate, num_workers=self.workers)  # type: ignore[arg-type]  # torch takes any sequences

    def fingerprint(self) -> str:
        """A digest that changes with the data: of a cache its manifest, of images their names, sizes and dates."""
        if self.cached:
            return sha256(self.path / MANIFEST)
        digest = hashlib.sha256()
        for i in range(len(self)):
            path = Path(self.dataset.get_data_info(i)['img_path'])
            found = path.stat()
            digest.update(f'{path.relative_to(self.path)}\0{found.st_size}\0{found.st_mtime_ns}\0'.encode())
        return digest.hexdigest()


def is_cache(path: Path) -> bool:
    """Whether a folder is a latent cache, finished or not.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at '{path}': give a folder of class folders with images, or a latent cache")
    return (path / MANIFEST).is_file() or (path / PLAN).is_file()


def open_data(cfg: Config, path: Path, *, training: bool, augment: bool | None = False, workers: int = 0) -> ProbeData:
    """A split for the model of a config.

    Images pass the pipeline of the config if it is a probe's on images, for training with `augment` and for validation
    without; otherwise they are cropped as the latent cache does it.

    Args:
        cfg: of the model.
        path: a folder with one sub-folder a class, or a latent cache.
        training: which split it is; only this one is augmented.
        augment: whether samples vary from epoch to epoch: the cache's crops and flips, the config's pipeline. None: where the
            config has such a pipeline.
        workers: processes that load it.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: a cache of another VAE or image size, data without classes, or augmentation that there is not.
    """
    part = cfg.model.get('denoiser') or cfg.model.backbone
    size, cached, pipeline = part.get('img_size', 256 if 'denoiser' in cfg.model else 224), is_cache(path), None
    if cached:
        vae = (cfg.model.get('data_preprocessor') or {}).get('vae', 'sd-f8d4')
        settings = dict(type='LatentCacheDataset', data_root=str(path), vae=vae, img_size=size, flip=bool(augment))
        augmented = bool(augment)
    else:
        own = _pipeline(cfg, 'train') if training else None
        if augment and own is None:
            raise ValueError(f"no augmentation for the images of '{path}': the config is not of a probe on images")
        augmented = own is not None and augment is not False
        pipeline = (own if augmented else _pipeline(cfg, 'val')) or [
            dict(type='LoadImage'),
            dict(type='ADMCenterCrop', size=size),
            dict(type='PackInputs'),
        ]
        settings = dict(type='ImageFolder', data_root=str(path), data_prefix='', pipeline=pipeline)
    data = ProbeData(path, cached, 0 if training else 1, augmented, DATASETS.build(settings), pipeline, workers)
    if not data.classes:
        raise ValueError(f"'{path}' has no classes: a probe needs labelled data")
    return data


def _pipeline(cfg: Config, split: str) -> list[dict] | None:
    """That of a probe on images."""
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
    return dataset.get('pipeline') if cfg.model.type == 'USPClassifier' and dataset.get('type') == 'ImageFolder' else None


def check_same_classes(train: ProbeData, val: ProbeData) -> None:
    """ValueError unless class k is the same in both."""
    meeting = f"training data '{train.path}' and validation data '{val.path}'"
    check_classes(train.classes, val.classes, meeting, 'give two splits of one data set')


def shuffled(num: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of an epoch, which depend on (seed, epoch); an incomplete last one is left out."""
    order = torch.randperm(num, generator=torch.Generator().manual_seed(derive_seed(seed, epoch))).tolist()
    return [order[i : i + batch_size] for i in range(0, num - batch_size + 1, batch_size)]


def with_epoch(batches: Sequence[Sequence[int]], seed: int, epoch: int) -> list[list[int]]:
    """The same indices, by which augmentations are drawn anew in each epoch."""
    return [[EpochIndex(i, epoch, seed) for i in batch] for batch in batches]


def in_order(num: int, batch_size: int) -> list[list[int]]:
    """All samples, once."""
    return [list(range(i, min(i + batch_size, num))) for i in range(0, num, batch_size)]


def stream(
    model: FrozenModel, data: ProbeData, layers: Sequence[int], batches: Sequence[Sequence[int]], task: str
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Features of each layer [N, D] and classes int64[N], batch by batch, on the model's device."""
    with tqdm(total=sum(map(len, batches)), desc=task, unit='img', leave=False) as progress:
        for batch in data.loader(batches):
            features, labels = model(batch, layers, data.split)
            yield features, labels
            progress.update(len(labels))


def extract(
    model: FrozenModel, data: ProbeData, layers: Sequence[int], batch_size: int, task: str
) -> tuple[list[Tensor], Tensor]:
    """Features of every sample in order: float32[N, D] for each layer, and int64[N], classes, on the CPU."""
    width, num = model.network.embed_dims, len(data)
    features, labels = [torch.empty(num, width) for _ in layers], torch.empty(num, dtype=torch.int64)
    start = 0
    for parts, classes in stream(model, data, layers, in_order(num, batch_size), task):
        place = slice(start, start + len(classes))
        for kept, part in zip(features, parts, strict=True):
            kept[place] = part.cpu()
        labels[place] = classes.cpu()
        start += len(classes)
    return features, labels
