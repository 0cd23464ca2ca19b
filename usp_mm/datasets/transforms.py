"""Pipeline steps that mmpretrain lacks."""

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.logging import MMLogger
from PIL import Image

from usp_mm.functional import random
from usp_mm.registry import TRANSFORMS

from .epoch_index import EpochIndex
from .latent_cache.crops import center_crop
from .seeding import seed_all


@TRANSFORMS.register_module()
class SeedBySample(BaseTransform):
    """First step of a random pipeline: seed `random`, NumPy and PyTorch from (seed, epoch, sample).

    Every later step then draws the same numbers for a sample whatever the number of workers and
    processes, and after a resume. Needs `EpochSampler`; with another sampler it warns and leaves
    the worker's own random state alone.

    Raises:
        ValueError: `results` has no 'sample_idx'.
    """

    _warned = False

    def transform(self, results: dict) -> dict:
        index = results.get('sample_idx')
        if index is None:
            raise ValueError(
                f"SeedBySample needs 'sample_idx', which mmengine's BaseDataset sets, but got only {sorted(results)}: "
                'put it first in the pipeline of a BaseDataset'
            )
        if isinstance(index, EpochIndex):
            seed_all(index.seed, index.epoch, index)
        elif not self._warned:
            self._warned = True
            MMLogger.get_current_instance().warning(
                'SeedBySample got an index without an epoch, so augmentations are random but not reproducible: '
                "use sampler=dict(type='EpochSampler')"
            )
        return results


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's `LoadImageFromFile` with Pillow, whose failures name the file.

    Pillow refuses a truncated JPEG, of which OpenCV before 5 returns the rest in grey. EXIF orientation is
    ignored, as in torchvision and in the latent cache. An image that was loaded already passes, as inferencers hand it over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or no image.
    """

    def __init__(
        self, *, imdecode_backend: str = 'pillow', color_type: str = 'color_ignore_orientation', **kwargs: Any
    ) -> None:
        super().__init__(imdecode_backend=imdecode_backend, color_type=color_type, **kwargs)

    def transform(self, results: dict) -> dict | None:
        if 'img' in results and 'img_path' not in results:
            return results
        try:
            return super().transform(results)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(f"cannot decode image '{results['img_path']}': {error}; replace or delete the file") from error


@TRANSFORMS.register_module()
class ADMCenterCrop(BaseTransform):
    """The central square of an image at `size` pixels, resized as ADM, DiT and the latent cache do it.

    Args:
        size: side of the crop, pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        results['img'] = np.array(center_crop(Image.fromarray(results['img']), self.size))
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class GaussianNoise(BaseTransform):
    """Noise of a robustness run: clip(x / 255 + std · n, 0, 1) · 255 (ImageNet-C, arXiv 1903.12261).

    The noise of image i depends on (seed, i) alone.

    Args:
        std: of images in [0, 1]; the five severities are `SEVERITIES`.
        seed: of the noise.

    Raises:
        ValueError: `std` is negative, or `results` has no 'sample_idx'.
    """

    #: Standard deviations of severities 1 to 5.
    SEVERITIES = (0.08, 0.12, 0.18, 0.26, 0.38)

    def __init__(self, std: float, seed: int = 0) -> None:
        if std < 0:
            raise ValueError(f'std={std} must not be negative: the severities are {self.SEVERITIES}')
        self.std, self.seed = std, seed

    def transform(self, results: dict) -> dict:
        if 'sample_idx' not in results:
            raise ValueError(f"GaussianNoise needs 'sample_idx', which a data set gives, but got only {sorted(results)}")
        index, image = torch.tensor([int(results['sample_idx'])]), results['img']
        noise = random.normal(index, torch.zeros_like(index), image.shape, seed=self.seed, stream='image_noise')[0]
        noisy = (image / 255 + self.std * noise.numpy().astype(np.float64)).clip(0, 1)
        results['img'] = np.rint(255 * noisy).astype(np.uint8)
        return results
