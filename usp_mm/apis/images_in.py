"""Convert images of any supported form to the input of a model's preprocessor."""

from collections.abc import Iterator, Mapping, Sequence
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

#: A picture: a file, a PIL image, or uint8[H, W, 3] in RGB.
Picture = str | Path | Image.Image | np.ndarray
#: Steps that only files, or only batches of a data set, need.
_AROUND = ('LoadImage', 'LoadImageFromFile', 'PackInputs')
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
            scaled latents [N, `channels`, h, w].
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
    listed = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        listed = list(images)
    if not listed:
        raise ValueError('no images: give one at least')
    for start in range(0, len(listed), batch_size):
        yield torch.stack([cropped(image, crop) for image in listed[start : start + batch_size]])


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
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return image
    given = f'{image.dtype}{list(image.shape)}' if isinstance(image, np.ndarray) else f'a {type(image).__name__}'
    raise ValueError(f'{given} is no picture: expected a file, a PIL image, uint8[H, W, 3], or a tensor [N, 3, H, W] of all')
