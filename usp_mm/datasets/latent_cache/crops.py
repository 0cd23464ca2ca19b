"""Decoding and cropping of the images that go into a latent cache."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine import fileio
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import RandomResizedCrop

from usp_mm.images import load_decoded

from ..seeding import derive_seed

#: Aspect ratios of random resized crops (Szegedy et al., "Going deeper with convolutions").
RATIO = (3 / 4, 4 / 3)
#: `crop['color']` of the caches whose images were taken as they are stored: not turned, and wide modes clipped.
AS_STORED = 'RGB, EXIF orientation ignored'


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
    """torchvision's random resized crop (bicubic), drawn only from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        top, left, height, width = RandomResizedCrop.get_params(image, list(scale), list(RATIO))
    return image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)


class CroppedImages(Dataset):
    """Sample i -> uint8[K, 3, size, size], its K crops; or the error that was met, which the main process raises.

    For a cache whose images were taken as they are stored, an image that would now be turned or scaled is an error.

    Args:
        root: Folder of the images.
        paths: Paths of the images, relative to `root`.
        size: Side of a crop, pixels.
        crop: `plan['crop']`.
        crops: Number of crops of each image, K.
    """

    def __init__(self, root: str, paths: Sequence[str], size: int, crop: dict, crops: int) -> None:
        self.root, self.paths, self.size, self.crop, self.crops = root, np.array(paths), size, crop, crops

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | ValueError:
        try:
            image = self._load(index)
        except (ValueError, OSError) as error:
            return ValueError(str(error))
        views = [np.asarray(self._crop(image, index, k)) for k in range(self.crops)]
        return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous()

    def view(self, index: int, k: int, flip: bool) -> Tensor:
        """Return crop k of sample `index`, or its mirror image: uint8[3, size, size].

        Raises:
            FileNotFoundError: the image is gone.
            ValueError: the image can't be decoded.
        """
        image = self._crop(self._load(index), index, k)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return (pixels.flip(-1) if flip else pixels).contiguous()

    def _load(self, index: int) -> Image.Image:
        path = fileio.join_path(self.root, str(self.paths[index]))
        image, turned, scaled = load_decoded(path)
        if (turned or scaled) and self.crop.get('color') == AS_STORED:
            raise ValueError(
                f"image '{path}' has an EXIF orientation or more than 8 bits, which this cache ignored when it was begun and "
                'which is heeded now: write the cache anew, into another folder'
            )
        return image

    def _crop(self, image: Image.Image, index: int, k: int) -> Image.Image:
        if self.crop['mode'] == 'center':
            return center_crop(image, self.size)
        return random_crop(image, self.size, self.crop['scale'], derive_seed(self.crop['seed'], index, k))


def stack_or_error(items: list[Tensor | ValueError]) -> Tensor | ValueError:
    """Collate to uint8[N, K, 3, H, W], or return the first error."""
    tensors = []
    for item in items:
        if isinstance(item, ValueError):
            return item
        tensors.append(item)
    return torch.stack(tensors)
