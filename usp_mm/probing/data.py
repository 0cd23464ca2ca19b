"""Labelled data for probes: folders of images and latent caches, read in batches or turned into features once.

Shape legend: N samples, D width.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from usp_mm.datasets.label_subset import label_subset
from usp_mm.datasets.latent_cache import collate_latents
from usp_mm.datasets.latent_cache.manifest import MANIFEST, PLAN
from usp_mm.datasets.seeding import derive_seed
from usp_mm.fileio.atomic import sha256
from usp_mm.registry import DATASETS
from usp_mm.vaes.settings import vae_name

from .features import FrozenModel


@dataclass(frozen=True)
class ProbeData:
    """One split of labelled data.

    Attributes:
        path: Folder of the data.
        cached: Whether the folder is a latent cache.
        split: 0 for training, 1 for validation.
        augmented: Whether a sample differs from epoch to epoch.
        dataset: ImageFolder or LatentCacheDataset.
        pipeline: The images' pipeline in the config.
        workers: Number of worker processes that load the data; 0 loads it in this process.
        rows: Numbers in `dataset` of the samples that are used, in ascending order; None for all.
        labels_per_class, labels_seed: How `rows` were chosen, see `with_labels`.

    A sample keeps the noise and the augmentation of its number in `dataset`, whichever others are used.
    """

    path: Path
    cached: bool
    split: int
    augmented: bool
    dataset: Any
    pipeline: list[dict] | None = None
    workers: int = 0
    rows: tuple[int, ...] | None = None
    labels_per_class: int | None = None
    labels_seed: int | None = None

    def __len__(self) -> int:
        return len(self.dataset) if self.rows is None else len(self.rows)

    def with_labels(self, per_class: int, seed: int) -> 'ProbeData':
        """The same data with `per_class` samples of each class, chosen by `label_subset`.

        Raises:
            ValueError: As in `label_subset`.
        """
        rows = label_subset(self.dataset.get_gt_labels(), per_class, seed, self.classes, f"'{self.path}'")
        return replace(self, rows=tuple(rows.tolist()), labels_per_class=per_class, labels_seed=seed)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return tuple(self.dataset.CLASSES or ())

    def loader(self, batches: Sequence[Sequence[int]]) -> DataLoader:
        """A loader of the samples with these indices, in these batches."""
        if self.rows is not None:
            batches = [[_renumbered(index, self.rows[index]) for index in batch] for batch in batches]
        collate = collate_latents if self.cached else default_collate
        return DataLoader(self.dataset, batch_sampler=batches, collate_fn=collate, num_workers=self.workers)  # type: ignore[arg-type]  # torch takes any sequences

    def fingerprint(self) -> str:
        """A digest that changes with the data: of a cache's manifest, or of the images' names, sizes and dates."""
        chosen = '' if self.rows is None else f' samples {",".join(map(str, self.rows))}'
        if self.cached:
            manifest = sha256(self.path / MANIFEST)
            return hashlib.sha256((manifest + chosen).encode()).hexdigest() if chosen else manifest
        digest = hashlib.sha256(chosen.encode())
        for i in range(len(self.dataset)):
            path = Path(self.dataset.get_data_info(i)['img_path'])
            found = path.stat()
            digest.update(f'{path.relative_to(self.path)}\0{found.st_size}\0{found.st_mtime_ns}\0'.encode())
        return digest.hexdigest()


def _renumbered(index: int, row: int) -> int:
    """The row in the whole data set, with the epoch and the seed of an `EpochIndex`."""
    return EpochIndex(row, index.epoch, index.seed) if isinstance(index, EpochIndex) else row


def is_cache(path: Path) -> bool:
    """Whether a folder is a latent cache, complete or not.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at '{path}': give a folder of class folders with images, or a latent cache")
    return (path / MANIFEST).is_file() or (path / PLAN).is_file()


def open_data(
    cfg: Config,
    path: Path,
    *,
    training: bool,
    augment: bool | None = False,
    workers: int = 0,
    labelled: bool = True,
) -> ProbeData:
    """Open a split of data for the model of a config.

    If the config is of a probe on images, images pass its training pipeline with `augment`, and its validation pipeline
    otherwise. With any other config, they are cropped as for the latent cache.

    Args:
        cfg: Config of the model.
        path: A folder with one sub-folder per class, or a latent cache.
        training: Whether this is the training split; only this one is augmented.
        augment: Whether samples vary from epoch to epoch, by the cache's crops and flips or the config's pipeline. None
            augments if the config has such a pipeline.
        workers: Number of worker processes that load the data.
        labelled: Whether data without classes are refused.

    Raises:
        FileNotFoundError: The folder does not exist or has no images.
        ValueError: The cache has another VAE or image size, the data have no classes, or augmentation is not available.
    """
    part = cfg.model.get('denoiser') or cfg.model.backbone
    size, cached, pipeline = part.get('img_size', 256 if 'denoiser' in cfg.model else 224), is_cache(path), None
    if cached:
        vae = vae_name(cfg.model.get('data_preprocessor'))
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
    if labelled and not data.classes:
        raise ValueError(f"'{path}' has no classes: a probe needs labelled data")
    return data


def _pipeline(cfg: Config, split: str) -> list[dict] | None:
    """The pipeline of a probe on images; None for other configs."""
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
    return dataset.get('pipeline') if cfg.model.type == 'USPClassifier' and dataset.get('type') == 'ImageFolder' else None


def check_same_classes(train: ProbeData, val: ProbeData) -> None:
    """Raise ValueError unless label k stands for the same class in both splits."""
    meeting = f"training data '{train.path}' and validation data '{val.path}'"
    check_classes(train.classes, val.classes, meeting, 'give two splits of one data set')


def shuffled(num: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of one epoch, shuffled by (seed, epoch); an incomplete last batch is dropped."""
    order = torch.randperm(num, generator=torch.Generator().manual_seed(derive_seed(seed, epoch))).tolist()
    return [order[i : i + batch_size] for i in range(0, num - batch_size + 1, batch_size)]


def with_epoch(batches: Sequence[Sequence[int]], seed: int, epoch: int) -> list[list[int]]:
    """The same indices with seed and epoch, from which augmentations are drawn anew in each epoch."""
    return [[EpochIndex(i, epoch, seed) for i in batch] for batch in batches]


def in_order(num: int, batch_size: int) -> list[list[int]]:
    """Batches of all samples, in order."""
    return [list(range(i, min(i + batch_size, num))) for i in range(0, num, batch_size)]


def stream(
    model: FrozenModel, data: ProbeData, layers: Sequence[int], batches: Sequence[Sequence[int]], task: str
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Yield, for each batch, the features of each layer [N, D] and the classes int64[N], on the model's device."""
    with tqdm(total=sum(map(len, batches)), desc=task, unit='img', leave=False) as progress:
        for batch in data.loader(batches):
            features, labels = model(batch, layers, data.split)
            yield features, labels
            progress.update(len(labels))


def extract(
    model: FrozenModel, data: ProbeData, layers: Sequence[int], batch_size: int, task: str
) -> tuple[list[Tensor], Tensor]:
    """Features of every sample in order, float32[N, D] for each layer, and their classes int64[N], on the CPU."""
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
