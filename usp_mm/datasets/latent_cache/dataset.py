"""Read a latent cache as an mmpretrain data set."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmpretrain.datasets import BaseDataset
from mmpretrain.structures import DataSample
from torch import Tensor

from usp_mm.functional.random import uniform
from usp_mm.registry import DATASETS

from ..class_names import check_renaming
from ..epoch_index import EpochIndex
from ..label_subset import label_subset
from .crops import CroppedImages
from .labels import read_labels, read_sample_paths
from .manifest import WRITE_COMMAND, read_manifest
from .shards import Shard, ShardReader, all_shards, token_shards
from .verify import verify_at_start


@DATASETS.register_module()
class LatentCacheDataset(BaseDataset):
    """Posterior moments from the cache that `usp cache write` made, in place of images.

    A sample is `dict(inputs=float32[2C, h, w], data_samples=DataSample)`: mean and log-variance,
    unscaled, with `gt_label` and `sample_idx`. The model's data preprocessor draws the latent.
    A cache of means only gives a log-variance of -30, so the draw is the mean.

    Which view (crop, flip) a sample shows depends on (seed, epoch, sample), taken from the
    `EpochIndex` of `EpochSampler`; a plain int is epoch 0, seed 0. Each repetition of a sample in
    `RepeatDataset` shows a view of its own. Shards are mapped into memory, in each process on first
    use; nothing of them is pickled.

    Args:
        data_root: Folder of the cache.
        vae: Preset the cache must have been written with; unchecked if None, as are the next three.
        vae_hash: Hash of the weights the cache must have been written with (`LatentCodec.weight_hash`).
        img_size: Side of the encoded crops the cache must have, pixels.
        num_samples: Images the cache must hold.
        flip: True, a random view; False, always the first (unflipped), as for validation.
        teacher: Name of the encoder whose tokens the cache holds too; a sample then has them of its view as
            `teacher_tokens` [L, E], in the dtype that they are stored in.
        images: The folder that the cache was written from; a sample then has its view's pixels as `images`,
            uint8[3, img_size, img_size], RGB, decoded anew each time.
        metainfo: Overrides of the meta information, such as class names, one for each class in the order of the labels.
        verify: What is compared with its checksum now: 'full', all shards; 'fast', up to 1 GiB of them, drawn anew each time;
            'off'. See `verify_at_start`.
        labels_per_class: Keep only so many samples of each class, see `label_subset`; None keeps all.
        labels_seed: Seed of that choice.

    Raises:
        FileNotFoundError: No cache, or an incomplete one.
        ValueError: The cache is another one than asked for, or a file is missing, too short or damaged; an image can't be
            decoded; class names that are not one for each class, or the cache's own in another order.
    """

    _warned = False

    def __init__(
        self,
        data_root: str,
        vae: str | None = None,
        vae_hash: str | None = None,
        img_size: int | None = None,
        num_samples: int | None = None,
        flip: bool = True,
        metainfo: dict | None = None,
        teacher: str | None = None,
        images: str | None = None,
        verify: str = 'fast',
        labels_per_class: int | None = None,
        labels_seed: int = 0,
    ) -> None:
        self.folder = Path(data_root).expanduser()
        self.manifest = read_manifest(self.folder)
        self.num_views = len(self.manifest['views'])
        self.flip = flip
        expected = dict(vae=vae, vae_weight_hash=vae_hash, image_size=img_size, num_samples=num_samples)
        self._check({key: value for key, value in expected.items() if value is not None})
        shards, tokens = all_shards(self.folder, self.manifest), []
        if teacher is not None:
            self._check_teacher(teacher)
            tokens = token_shards(self.folder, self.manifest)
        self._check_files([*shards, *tokens])
        verify_at_start(self.folder, self.manifest, verify, with_tokens=bool(tokens))
        self._latents = ShardReader(shards, self.manifest)
        self._tokens = ShardReader(tokens, self.manifest) if tokens else None
        self.teacher, self._images = teacher, None if images is None else self._open_images(images)
        self._labels = torch.from_numpy(read_labels(self.folder, self.manifest))
        self._rows = np.arange(self.manifest['num_samples'])  # what `get_subset_` narrows
        classes = self.manifest.get('classes')
        self.labels_per_class, self.labels_seed = labels_per_class, labels_seed
        if labels_per_class is not None:
            where = f"latent cache '{self.folder}'"
            self._rows = label_subset(self._labels.numpy(), labels_per_class, labels_seed, classes, where)
        if classes and metainfo and metainfo.get('classes'):
            check_renaming(classes, metainfo['classes'], f"latent cache '{self.folder}'")
        super().__init__(
            ann_file='',
            data_root=data_root,
            lazy_init=True,
            metainfo={**(dict(classes=tuple(classes)) if classes else {}), **(metainfo or {})},
        )
        self.full_init()

    def _check(self, expected: dict[str, Any]) -> None:
        found = self.manifest
        differing = [
            f'{key}: {found[key]!r} in the cache, {value!r} in the config'
            for key, value in expected.items()
            if found[key] != value
        ]
        if differing:
            raise ValueError(f"latent cache '{self.folder}' is another one than the config asks for ({'; '.join(differing)})")
        if self.flip and self.num_views == 1:
            raise ValueError(
                f"latent cache '{self.folder}' holds one view of each image, so flip=True has nothing to choose: set flip=False"
            )

    def _check_teacher(self, teacher: str) -> None:
        found = (self.manifest.get('teacher') or {}).get('name')
        if found != teacher:
            holds = 'no tokens of a teacher' if found is None else f"the tokens of teacher '{found}'"
            fix = 'add them with' if found is None else 'name that one, or write another cache with'
            raise ValueError(
                f"latent cache '{self.folder}' holds {holds}, the config asks for '{teacher}': "
                f"{fix} '{WRITE_COMMAND} … --teacher {teacher}'"
            )

    def _open_images(self, root: str) -> CroppedImages:
        paths = self.image_paths()
        root = root if '://' in root else str(Path(root).expanduser())
        first = Path(root) / paths[0]
        if '://' not in root and not first.is_file():
            raise FileNotFoundError(
                f"no '{first}', the first image of latent cache '{self.folder}': give the folder that it was written from"
            )
        return CroppedImages(root, paths, self.manifest['image_size'], self.manifest['crop'], self.manifest['crops'])

    def _check_files(self, shards: list[Shard]) -> None:
        sizes = {shard.path: shard.path.stat().st_size if shard.path.is_file() else -1 for shard in shards}
        bad = [shard.path.name for shard in shards if sizes[shard.path] != shard.num_bytes]
        if bad:
            raise ValueError(
                f"latent cache '{self.folder}': {', '.join(bad)} missing or of the wrong size: "
                f"run the same '{WRITE_COMMAND}' command again to redo them"
            )

    @property
    def has_images(self) -> bool:
        """Whether samples come with their pixels."""
        return self._images is not None

    def full_init(self) -> None:
        """Do nothing, as nothing is left to initialise."""
        self._fully_initialized = True

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Read and convert the samples of a batch together; PyTorch's loaders call this."""
        if self.flip and not self._warned and not isinstance(indices[0], EpochIndex):
            self._warned = True
            MMLogger.get_current_instance().warning(
                'LatentCacheDataset got an index without an epoch, so each sample shows the same view in every epoch: '
                "use sampler=dict(type='EpochSampler'), or flip=False for validation (with that sampler, the index is of a "
                'wrapper that draws further samples itself)'
            )
        samples = [self._normalised(index) for index in indices]
        rows = self._rows[np.array(samples, dtype=np.int64)]
        views = self._views(samples, rows)
        inputs = self._latents(rows, views)
        labels = self._labels[torch.from_numpy(rows)].unsqueeze(1)
        labelled = self.CLASSES is not None
        batch = []
        for index, moments, label in zip(samples, inputs.unbind(), labels.unbind(), strict=True):
            sample = DataSample()
            sample.set_field(index, 'sample_idx', field_type='metainfo')
            if labelled:
                sample.set_field(label, 'gt_label', dtype=Tensor)
            batch.append(dict(inputs=moments, data_samples=sample))
        for key, values in self._beside(rows, views).items():
            for sample, value in zip(batch, values, strict=True):
                sample[key] = value
        return batch

    def _beside(self, rows: np.ndarray, views: np.ndarray) -> dict[str, Sequence[Tensor]]:
        """The other fields of these samples and views, which go with their latents."""
        beside: dict[str, Sequence[Tensor]] = {}
        if self._tokens is not None:
            beside['teacher_tokens'] = self._tokens(rows, views).unbind()
        if self._images is not None:
            crops, flips = np.divmod(views, 2) if self.manifest['flip'] else (views, np.zeros_like(views))
            pairs = zip(rows.tolist(), crops.tolist(), flips.tolist(), strict=True)
            beside['images'] = [self._images.view(row, crop, bool(flip)) for row, crop, flip in pairs]
        return beside

    def _normalised(self, index: int) -> int:
        num = len(self)
        if not -num <= index < num:
            raise IndexError(f'index {int(index)} is out of range for {num} samples')
        return index if index >= 0 else index + num

    def _views(self, indices: list[int], rows: np.ndarray) -> np.ndarray:
        """int64[N], the view each sample shows."""
        views = np.zeros(len(indices), dtype=np.int64)
        if not self.flip:
            return views
        crops, flipped = self.manifest['crops'], self.manifest['flip']
        # 0 unless a wrapper stands above: members of a concatenation and repetitions of a row draw views of their own
        above = [index.sample - int(index) if isinstance(index, EpochIndex) else 0 for index in indices]
        samples, seed = torch.from_numpy(rows + np.array(above, dtype=np.int64)), getattr(indices[0], 'seed', 0)
        epochs = torch.tensor([getattr(index, 'epoch', 0) for index in indices])
        if crops > 1:
            views += (uniform(samples, epochs, 1, seed=seed, stream='crop')[:, 0].numpy() * crops).astype(np.int64)
        if flipped:
            views = 2 * views + (uniform(samples, epochs, 1, seed=seed, stream='flip')[:, 0] < 0.5).numpy()
        return views

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Index, class and relative image path of a sample."""
        index = self._normalised(idx)
        row = int(self._rows[index])
        info = dict(sample_idx=index, img_path=self.image_paths()[row])
        return dict(info, gt_label=int(self._labels[row])) if self.CLASSES is not None else info

    def image_paths(self) -> list[str]:
        """Relative path of every image that was cached, read from the file at each call."""
        return read_sample_paths(self.folder, self.manifest)

    def get_gt_labels(self) -> np.ndarray:
        """int64[N], class of every sample."""
        return self._labels.numpy()[self._rows]

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of a sample, as a list of one."""
        return [int(self._labels[self._rows[self._normalised(idx)]])]

    def get_subset_(self, indices: int | Iterable[int]) -> None:
        """Keep the first `indices` samples (the last if negative), or the samples of these numbers."""
        if isinstance(indices, int):
            self._rows = self._rows[:indices] if indices >= 0 else self._rows[indices:]
        else:
            self._rows = self._rows[np.array(list(indices), dtype=np.int64)]

    def get_subset(self, indices: int | Iterable[int]) -> 'LatentCacheDataset':
        """Return a data set of the samples that `get_subset_` would keep."""
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset
