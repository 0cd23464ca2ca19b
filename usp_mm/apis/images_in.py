"""Convert images of any supported form to the input of a model's preprocessor."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps
from torch import Tensor

from usp_mm.datasets import dataset_configs
from usp_mm.images import load_image

from .config_data import check_steps

#: A picture: a file, a PIL image, or uint8[H, W, 3] in RGB or uint8[H, W] in grey.
Picture = str | Path | Image.Image | np.ndarray
#: Steps that only files, or only batches of a data set, need.
_AROUND = ('LoadImage', 'LoadImageFromFile', 'PackInputs')
_EXPECTED = 'expected a file, a PIL image, uint8[H, W, 3] or [H, W], or a tensor [N, 3, H, W] of all'
_EIGHT_BITS = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'LAB')


def square_crop(size: int) -> Compose:
    """Resize the shorter side to `size` (bicubic) and crop the centre, as for restoration pictures."""
    return _built([
        dict(type='ResizeEdge', scale=size, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=size),
    ])  # fmt: skip


def evaluation_crop(cfg: Mapping[str, Any], size: int, where: str) -> Compose:
    """The resizing and cropping that a classifier's config applies to test images; for a latent cache, its centre crop.

    Raises:
        ValueError: A step belongs to another library.
    """
    loader = Config(dict(loader=cfg.get('test_dataloader') or cfg.get('val_dataloader') or {})).loader
    pipelines = [list(dataset.pipeline) for dataset in dataset_configs(loader.get('dataset')) if dataset.get('pipeline')]
    if not pipelines:
        cached = loader.get('dataset') is not None
        return _built([dict(type='ADMCenterCrop', size=size)]) if cached else square_crop(size)
    check_steps(pipelines[0], where)
    return _built([step for step in pipelines[0] if step['type'] not in _AROUND])


def _built(steps: Sequence[Mapping[str, Any]]) -> Compose:
    return Compose([TRANSFORMS.build(dict(step)) for step in steps])


def batches(images: Any, crop: Compose, batch_size: int, channels: int) -> Iterator[Tensor]:
    """Yield float or uint8 batches [n, 3, H, W], RGB in [0, 255], or latents unchanged.

    Args:
        images: One or several pictures; or a tensor [N, 3, H, W] (RGB, uint8 or float in [0, 1]), which is not resized; or
            scaled latents [N, `channels`, h, w]; or a list of such tensors without N, of one shape and dtype.
        crop: Resizing and cropping of pictures.
        batch_size: Maximum number of images in a batch.
        channels: Number of channels of the model's latents.

    Raises:
        ValueError: The images are of an unsupported kind, or there are none.
        FileNotFoundError: A file does not exist.
    """
    if isinstance(images, Tensor):
        yield from _of_tensor(images, channels).split(batch_size)
        return
    pictures = listed(images)
    if all(isinstance(image, Tensor) for image in pictures):
        yield from _of_tensor(_stacked(pictures), channels).split(batch_size)
        return
    names = [f'images[{i}]' for i in range(len(pictures))] if len(pictures) > 1 else ['images']
    for start in range(0, len(pictures), batch_size):
        chunk = slice(start, start + batch_size)
        yield torch.stack([_named(image, crop, name) for image, name in zip(pictures[chunk], names[chunk], strict=True)])


def listed(images: Any) -> list[Any]:
    """One or several pictures as a list.

    Raises:
        ValueError: There are none, or it is neither a picture nor a list.
    """
    if isinstance(images, str | bytes | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    if not isinstance(images, Iterable):
        raise ValueError(f'images={images!r}: {_EXPECTED}')
    if not (several := list(images)):
        raise ValueError('no images: give one at least')
    return several


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    kinds = list(dict.fromkeys(f'{list(x.shape)} ({x.dtype})' for x in tensors))
    if len(kinds) > 1:
        raise ValueError(f'images: tensors {kinds[0]} and {kinds[1]} in one list: expected one shape and dtype')
    return torch.stack(list(tensors))


def _named(image: Picture, crop: Compose, name: str) -> Tensor:
    """Crop a picture; errors of one that has no path of its own begin with `name`."""
    try:
        return cropped(image, crop)
    except (OSError, ValueError) as error:
        if isinstance(image, str | Path):
            raise
        raise ValueError(f'{name}: {error}') from error


def _of_tensor(images: Tensor, channels: int) -> Tensor:
    if images.ndim != 4 or images.shape[1] not in (3, channels) or not len(images):
        expected = ' or '.join(dict.fromkeys(['[N, 3, H, W] (images)', f'[N, {channels}, h, w] (latents)']))
        raise ValueError(f'a tensor {list(images.shape)}: expected {expected}')
    if images.shape[1] != 3 or images.dtype == torch.uint8:
        return images
    if not images.is_floating_point() or not 0 <= float(images.min()) <= float(images.max()) <= 1:
        low, high = images.min().item(), images.max().item()
        raise ValueError(f'a {images.dtype} tensor of images from {low} to {high}: expected uint8, or floats from 0 to 1')
    return images.float() * 255


def cropped(image: Picture, crop: Compose) -> Tensor:
    """Crop a picture and return it as uint8[3, H, W], RGB."""
    pixels = rgb(image)[..., ::-1]  # the steps expect BGR
    size = pixels.shape[:2]
    found = crop(dict(img=np.ascontiguousarray(pixels), img_shape=size, ori_shape=size, sample_idx=0))
    return torch.from_numpy(np.ascontiguousarray(found['img'][..., ::-1])).permute(2, 0, 1)


def rgb(image: Picture) -> np.ndarray:
    """Return a picture as uint8[H, W, 3], RGB.

    Raises:
        ValueError: An array has another shape or type, or the values of an image do not have 8 bits.
        FileNotFoundError: The file does not exist.
    """
    if isinstance(image, str | Path):
        return np.asarray(load_image(image))
    if isinstance(image, Image.Image):
        if image.mode not in _EIGHT_BITS:
            raise ValueError(f"a PIL image of mode '{image.mode}': convert it to 'RGB', or give its file, which is scaled")
        upright = ImageOps.exif_transpose(image)  # as when files are read
        return np.asarray((upright or image).convert('RGB'))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.ndim == 3 and image.shape[2] == 3:
            return image
        if image.ndim == 2:
            return np.repeat(image[..., None], 3, axis=2)  # as PIL converts mode 'L'
    given = f'{image.dtype}{list(image.shape)}' if isinstance(image, np.ndarray) else f'a {type(image).__name__}'
    raise ValueError(f'{given} is no picture: {_EXPECTED}')
