"""Augmentations of the official recipes that mmpretrain has otherwise."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from timm.data.random_erasing import RandomErasing

from usp_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PixelRandomErasing(BaseTransform):
    """timm's `RandomErasing(mode='pixel')` of a normalised image, for images that the data preprocessor normalises later.

    timm replaces a rectangle of the normalised image by noise of N(0, 1). The same noise is here mean + std · N(0, 1),
    which normalises to it, as float32 and not clipped: mmpretrain's `RandomErasing` rounds it to 0 … 255, where half-range
    normalisation leaves nothing beyond one standard deviation. The rectangle has 0.02 to 1/3 of the image's area and
    an aspect ratio of 0.3 to 10/3. Every image leaves as float32, erased or not. Put it just before `PackInputs`.

    Args:
        erase_prob: probability that an image is erased.
        count: rectangles in an erased image, each of a `count`-th of the area.
        mean, std, to_rgb: those of the data preprocessor: RGB, for images in [0, 255] that are BGR before it if `to_rgb`.

    Raises:
        ValueError: a probability outside 0 … 1, or a count below 1.
    """

    def __init__(
        self,
        erase_prob: float = 0.25,
        count: int = 1,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
        to_rgb: bool = True,
    ) -> None:
        if not 0 <= erase_prob <= 1 or count < 1:
            raise ValueError(f'erase_prob={erase_prob} must lie in [0, 1] and count={count} be at least 1')
        self.eraser = RandomErasing(erase_prob, mode='pixel', min_count=count, device='cpu')
        order = slice(None, None, -1) if to_rgb else slice(None)
        self.mean, self.std = (np.asarray(values, np.float32)[order] for values in (mean, std))

    def transform(self, results: dict) -> dict:
        img = results['img'].astype(np.float32)
        height, width, channels = img.shape
        noise = self.eraser(torch.full((channels, height, width), torch.nan)).permute(1, 2, 0).numpy()
        results['img'] = np.where(np.isnan(noise), img, self.mean + self.std * noise)
        return results
