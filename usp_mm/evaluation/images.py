"""Readers of samples and references: an `.npz` in the format of ADM's evaluator, or a folder of images.

They return batches of RGB images, uint8[n, 3, H, W], with their numbers, so that several processes can share the work. The next
batch is read while the caller works on one; for a GPU, images are in pinned memory.
"""

import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from mmengine import fileio
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from usp_mm.datasets.folder import scan_image_folder
from usp_mm.datasets.latent_cache.crops import center_crop
from usp_mm.fileio.atomic import sha256
from usp_mm.fileio.npz import explain_broken
from usp_mm.images import DECODING, load_image

from .folder_hash import folder_hash

#: Numbers of the images in a batch, and the images.
Batch = tuple[list[int], Tensor]


class NpzImages:
    """The RGB images in array `arr_0`, uint8[N, H, W, 3], of an `.npz`, read batch by batch and never all at once.

    Attributes:
        num: Number N of images.
        size: Their size (H, W).
        decoding: None, since nothing is decoded.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an `.npz` or has no `arr_0`, or the array is not as described.
    """

    KEY = 'arr_0'
    decoding: str | None = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        headers = read_headers(self.path)
        if self.KEY not in headers:
            raise ValueError(f"{path} holds no images: expected array '{self.KEY}', found {sorted(headers)}")
        shape, dtype, fortran_order = headers[self.KEY]
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran_order or 0 in shape:
            order = ' in Fortran order' if fortran_order else ''
            raise ValueError(
                f"'{self.KEY}' of {path} is {dtype}{list(shape)}{order}: expected images as uint8[N, height, width, 3], RGB"
            )
        self.num, self.size = shape[0], shape[1:3]

    def content_hash(self, cache: Path | None = None) -> str:
        """SHA-256 of the file; `cache` is not used."""
        return sha256(self.path)

    def batches(self, batch_size: int, rank: int = 0, world: int = 1, num: int | None = None) -> Iterator[Batch]:
        """The share of process `rank` out of `world` in the first `num` images (None: all), in batches."""
        return _read_ahead(self._batches(batch_size, rank, world, self.num if num is None else num))

    def _batches(self, batch_size: int, rank: int, world: int, num: int) -> Iterator[Batch]:
        with open_array(self.path, self.KEY) as (file, _):
            row = (*self.size, 3)
            for block, start in enumerate(range(0, num, batch_size)):
                indices = range(start, min(start + batch_size, num))
                with explain_broken(self.path):
                    content = file.read(len(indices) * math.prod(row))
                    images = np.frombuffer(bytearray(content), np.uint8).reshape(len(indices), *row)
                if block % world == rank:
                    yield list(indices), torch.from_numpy(images).permute(0, 3, 1, 2)


class FolderImages:
    """The images of a folder, sorted by class folder and name, or by name.

    Args:
        path: The folder.
        img_size: Side in pixels of ADM's centre crop; None keeps the images' size.
        num_workers: Number of processes that decode images.
        with_label: For a folder with images beside sub-folders with images: True takes only those in the sub-folders, False
            takes all.

    Attributes:
        num: Number of images.
        size: (H, W) with `img_size`, else None, since sizes are not known before the images are read.
        decoding: Name of the way in which files are decoded.
        classes: Names of the sub-folders; None if there are none.

    Raises:
        FileNotFoundError: The folder does not exist or has no image.
        ValueError: See `scan_image_folder`.
    """

    decoding: str | None = DECODING

    def __init__(
        self, path: str | Path, img_size: int | None = None, num_workers: int = 0, with_label: bool | None = None
    ) -> None:
        self.path, self.img_size, self.num_workers = Path(path), img_size, num_workers
        scan = scan_image_folder(str(path), with_label=with_label)
        self.files, self.classes = scan.paths, scan.classes
        self.num, self.size = len(self.files), img_size and (img_size, img_size)

    def content_hash(self, cache: Path | None = None) -> str:
        """See `folder_hash`."""
        return folder_hash(self.path, self.files, cache)

    def batches(self, batch_size: int, rank: int = 0, world: int = 1, num: int | None = None) -> Iterator[Batch]:
        """Like `NpzImages.batches`; images of different sizes are in different batches."""
        num = self.num if num is None else num
        starts = range(0, num, batch_size)
        blocks = [list(range(start, min(start + batch_size, num))) for start in islice(starts, rank, None, world)]
        dataset = _Decoded(self.path, self.files, self.img_size)
        loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=blocks,
            num_workers=self.num_workers,
            collate_fn=_stack_by_size,
            pin_memory=torch.cuda.is_available(),
        )
        for indices, stacks in zip(blocks, loader, strict=True):
            numbers = iter(indices)
            for images in stacks:
                yield list(islice(numbers, len(images))), images


def _stack_by_size(images: list[Tensor]) -> list[Tensor]:
    """Stack neighbours of one size."""
    return [torch.stack(list(group)) for _, group in groupby(images, key=lambda image: image.shape)]


def _read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; each is read in another thread while the caller works on the one before."""

    def read() -> Batch | None:
        batch = next(batches, None)
        return (batch[0], batch[1].pin_memory()) if batch and torch.cuda.is_available() else batch

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read)
        while (batch := coming.result()) is not None:
            coming = thread.submit(read)
            yield batch


Images = NpzImages | FolderImages


class _Decoded(Dataset):
    """Image i -> uint8 [3, H, W], RGB."""

    def __init__(self, root: Path, files: list[str], img_size: int | None) -> None:
        self.root, self.files, self.img_size = str(root), np.array(files), img_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        image = load_image(fileio.join_path(self.root, str(self.files[index])))
        if self.img_size is not None:
            image = center_crop(image, self.img_size)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def open_images(path: str | Path, img_size: int | None = None, num_workers: int = 0, with_label: bool | None = None) -> Images:
    """Open an `.npz` or a folder of images. All arguments but `path` are for folders, see `FolderImages`.

    Raises:
        FileNotFoundError: `path` does not exist, or the folder has no image.
        ValueError: The `.npz` holds no images, or the folder can't be read as asked.
    """
    return NpzImages(path) if is_npz(path) else FolderImages(path, img_size, num_workers, with_label)


def is_npz(path: str | Path) -> bool:
    """Whether `path` is a file, not a folder; FileNotFoundError if it does not exist."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist: give an .npz file or a folder of images")
    return not path.is_dir()


def read_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype, bool]]:
    """(shape, dtype, whether in Fortran order) of every array in an `.npz`, without reading the arrays.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an `.npz`, or is broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' is not a file: expected an .npz")
    headers = {}
    with explain_broken(path):
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix('.npy') for name in archive.namelist() if name.endswith('.npy')]
        for name in names:
            with open_array(path, name) as (_, header):
                headers[name] = header
    return headers


@contextmanager
def open_array(path: Path, name: str) -> Iterator[tuple[IO[bytes], Any]]:
    """An array of an `.npz` as a stream of bytes, with its (shape, dtype, whether in Fortran order)."""
    with zipfile.ZipFile(path) as archive, archive.open(f'{name}.npy') as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
        yield file, (shape, dtype, fortran_order)
