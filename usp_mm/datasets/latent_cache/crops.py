"""Decoding and cropping of the images that go into a latent cache."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from mmengine import fileio
from PIL import Image, ImageFile
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import RandomResizedCrop

from ..seeding import derive_seed

#: Aspect ratios of random resized crops (Szegedy et al., "Going deeper with convolutions").
RATIO = (3 / 4, 4 / 3)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central `size` × `size` of the image, its short side first resized to `size`.

    The crop of ADM, DiT and MAR: halve by box filter while the short side is at least twice
    `size`, then bicubic.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    ratio = size / min(image.size)
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def random_crop(image: Image.Image, size: int, scale: Sequence[float], seed: int) -> Image.Image:
    """torchvision's random resized crop (bicubic), drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        top, left, height, width = RandomResizedCrop.get_params(image, list(scale), list(RATIO))
    return image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)


def load_image(path: str) -> Image.Image:
    """An RGB image; EXIF orientation is ignored, as in torchvision.

    Raises:
        ValueError: the file is missing, truncated or no image.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        return Image.open(io.BytesIO(fileio.get(path))).convert('RGB')
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, DecompressionBombError, ...
        raise ValueError(
            f"cannot decode image '{path}': {error}; replace or delete it and run the same command again"
        ) from error


class CroppedImages(Dataset):
    """Sample i -> uint8[K, 3, size, size], its K crops; or the error met, to be raised in the main process.

    Args:
        root: folder of the images.
        paths: of the images in `root`.
        size: side of a crop, pixels.
        crop: `plan['crop']`.
        crops: K.
    """

    def __init__(self, root: str, paths: Sequence[str], size: int, crop: dict, crops: int) -> None:
        self.root, self.paths, self.size, self.crop, self.crops = root, np.array(paths), size, crop, crops

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | ValueError:
        try:
            image = load_image(fileio.join_path(self.root, str(self.paths[index])))
        except ValueError as error:
            return ValueError(str(error))
        views = [np.asarray(self._crop(image, index, k)) for k in range(self.crops)]
        return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous()

    def view(self, index: int, k: int, flip: bool) -> Tensor:
        """Crop k of sample `index`, or its mirror image: uint8[3, size, size].

        Raises:
            ValueError: the image can't be decoded.
        """
        image = self._crop(load_image(fileio.join_path(self.root, str(self.paths[index]))), index, k)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return (pixels.flip(-1) if flip else pixels).contiguous()

    def _crop(self, image: Image.Image, index: int, k: int) -> Image.Image:
        if self.crop['mode'] == 'center':
            return center_crop(image, self.size)
        return random_crop(image, self.size, self.crop['scale'], derive_seed(self.crop['seed'], index, k))


def stack_or_error(items: list[Tensor | ValueError]) -> Tensor | ValueError:
    """Collate to uint8[N, K, 3, H, W], or the first error."""
    for item in items:
        if isinstance(item, ValueError):
            return item
    return torch.stack(items)
