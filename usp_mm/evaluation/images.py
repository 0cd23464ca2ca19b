"""Where samples and references come from: an `.npz` of ADM's evaluator, or a folder of images.

Images are handed out as uint8 [n, 3, H, W], RGB, with their numbers, so that several processes can share the work.
"""

import zipfile
from collections.abc import Iterator
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
from usp_mm.files import sha256
from usp_mm.images import DECODING, load_image

from .folder_hash import folder_hash

#: Numbers of some images, and the images.
Batch = tuple[list[int], Tensor]


class NpzImages:
    """`arr_0`, uint8 [N, H, W, 3] in RGB, of an `.npz`: read in passing, never as a whole.

    Attributes:
        num: N.
        size: (H, W).
        decoding: None, nothing is decoded.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no `.npz`, no `arr_0` in it, or an array of another kind.
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
        """The first `num` images (all, if None) that fall to process `rank` of `world`."""
        num = self.num if num is None else num
        with open_array(self.path, self.KEY) as (file, _):
            row = (*self.size, 3)
            for block, start in enumerate(range(0, num, batch_size)):
                indices = range(start, min(start + batch_size, num))
                content = file.read(len(indices) * int(np.prod(row)))
                if block % world == rank:
                    images = np.frombuffer(bytearray(content), np.uint8).reshape(-1, *row)
                    yield list(indices), torch.from_numpy(images).permute(0, 3, 1, 2)


class FolderImages:
    """The images of a folder, by class folder and name, or by name.

    Args:
        path: the folder.
        img_size: side to crop to (ADM's centre crop); the images as they are if None.
        num_workers: decoding processes.
        with_label: where images lie beside sub-folders with images, True takes those in the sub-folders, False all.

    Attributes:
        num: how many.
        size: (H, W) with `img_size`, else None: unknown before they are read.
        decoding: how files become pixels.
        classes: names of the sub-folders; None in a folder without.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: see `scan_image_folder`.
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
        """As `NpzImages.batches`; images of different sizes come in different batches."""
        num = self.num if num is None else num
        starts = range(0, num, batch_size)
        blocks = [list(range(start, min(start + batch_size, num))) for start in islice(starts, rank, None, world)]
        dataset = _Decoded(self.path, self.files, self.img_size)
        loader = DataLoader(dataset, batch_sampler=blocks, num_workers=self.num_workers, collate_fn=list)
        for indices, images in zip(blocks, loader, strict=True):
            numbered = zip(indices, images, strict=True)
            for _, group in groupby(numbered, key=lambda item: item[1].shape):
                chosen, same = zip(*group, strict=True)
                yield list(chosen), torch.stack(same)


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
    """An `.npz` or a folder; the other arguments are for folders.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not images.
    """
    return NpzImages(path) if is_npz(path) else FolderImages(path, img_size, num_workers, with_label)


def is_npz(path: str | Path) -> bool:
    """Whether `path` is to be read as a file; FileNotFoundError if there is neither a file nor a folder."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist: give an .npz file or a folder of images")
    return not path.is_dir()


def read_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype, bool]]:
    """Shape, dtype and whether in Fortran order of every array in an `.npz`, without reading the arrays.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an `.npz`, or a broken one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' is not a file: expected an .npz")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix('.npy') for name in archive.namelist() if name.endswith('.npy')]
        headers = {}
        for name in names:
            with open_array(path, name) as (_, header):
                headers[name] = header
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f'{path} is not a whole .npz file ({error}): fetch or write it again') from error
    return headers


@contextmanager
def open_array(path: Path, name: str) -> Iterator[tuple[IO[bytes], Any]]:
    """An array of an `.npz` as a stream of bytes, with its (shape, dtype, whether in Fortran order)."""
    with zipfile.ZipFile(path) as archive, archive.open(f'{name}.npy') as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
        yield file, (shape, dtype, fortran_order)
