"""Augmentations of the official recipes for which mmpretrain's own version differs."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from timm.data.random_erasing import RandomErasing

from usp_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PixelRandomErasing(BaseTransform):
    """timm's `RandomErasing(mode='pixel')`, for images that are normalised later, by the data preprocessor.

    timm replaces a rectangle of the normalised image by noise from N(0, 1). Here the noise is mean + std · N(0, 1), which the
    normalisation turns into the same, in float32 and without clipping. (mmpretrain's `RandomErasing` rounds to 0 … 255, which
    with half-range normalisation clips the noise at one standard deviation.) The rectangle has 0.02 to 1/3 of the image's
    area and an aspect ratio of 0.3 to 10/3. All images become float32, erased or not. Put it just before `PackInputs`.

    Args:
        erase_prob: Probability that an image is erased.
        count: Number of rectangles in an erased image; each has 1/`count` of the area.
        mean, std, to_rgb: Settings of the data preprocessor: `mean` and `std` are RGB in [0, 255], and with `to_rgb` the
            images are still BGR here.

    Raises:
        ValueError: `erase_prob` is outside 0 … 1, or `count` is below 1.
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
