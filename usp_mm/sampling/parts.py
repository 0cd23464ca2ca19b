"""Store samples on disk while they are drawn, as blocks of consecutive numbers; each block's file is complete or absent.

Shape legend: N samples, H×W pixels, RGB.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from usp_mm.fileio.atomic import write_whole

_MOST = 64
_FEWEST_BLOCKS = 256


class SampleParts:
    """The blocks of `num` samples of H×W pixels in a folder.

    The limits of the blocks depend only on `num`, so any number of processes with any batch size may continue. There are
    enough blocks (256 if `num` allows) to divide the work evenly, and they are small (at most 64 samples), so that a killed
    process loses little.

    Args:
        folder: Folder of the blocks.
        num: Number of samples.
        img_size: Height and width of the samples, H = W.
    """

    def __init__(self, folder: Path, num: int, img_size: int) -> None:
        self.folder, self.num, self.shape = folder, num, (img_size, img_size, 3)
        size = min(_MOST, max(1, num // _FEWEST_BLOCKS))
        self.blocks = [range(start, min(start + size, num)) for start in range(0, num, size)]

    def path(self, number: int) -> Path:
        """File of a block."""
        return self.folder / f'part-{number:06d}.npy'

    def num_bytes(self, number: int) -> int:
        """Size of a block's file."""
        shape = (len(self.blocks[number]), *self.shape)
        return len(_header(np.dtype(np.uint8), shape)) + int(np.prod(shape))

    def is_whole(self, number: int) -> bool:
        """Whether the file of a block exists with its full size."""
        path = self.path(number)
        return path.is_file() and path.stat().st_size == self.num_bytes(number)

    def missing(self) -> list[int]:
        """Numbers of the blocks that are missing or incomplete."""
        return [number for number in range(len(self.blocks)) if not self.is_whole(number)]

    def count(self, numbers: list[int]) -> int:
        """Number of samples in these blocks."""
        return sum(len(self.blocks[number]) for number in numbers)

    def missing_bytes(self) -> int:
        """Disk space that the missing blocks and the final file need, in bytes."""
        return sum(map(self.num_bytes, self.missing())) + self.num * int(np.prod(self.shape))

    def write(self, number: int, images: np.ndarray) -> None:
        """Write a block: uint8[N, H, W, 3]."""
        expected = (len(self.blocks[number]), *self.shape)
        assert images.shape == expected and images.dtype == np.uint8, f'{images.dtype}{images.shape}, not uint8{expected}'
        with write_whole(self.path(number)) as file:
            np.save(file, images, allow_pickle=False)

    def assemble(self, out: Path, labels: np.ndarray) -> None:
        """Write `out` in the format of ADM's evaluator: arr_0 uint8[N, H, W, 3], arr_1 int64[N].

        One block is in memory at a time.

        Raises:
            OSError: A block is missing.
        """
        with write_whole(out) as file, zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
            with archive.open('arr_0.npy', 'w', force_zip64=True) as member:
                member.write(_header(np.dtype(np.uint8), (self.num, *self.shape)))
                for number in tqdm(range(len(self.blocks)), desc='assembling', unit='part', leave=False):
                    member.write(np.ascontiguousarray(np.load(self.path(number), mmap_mode='r', allow_pickle=False)).data)
            with archive.open('arr_1.npy', 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, labels, allow_pickle=False)


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(header, dict(descr=descr, fortran_order=False, shape=shape))
    return header.getvalue()
