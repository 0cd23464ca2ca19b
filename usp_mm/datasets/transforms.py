"""Pipeline steps that mmpretrain lacks."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.logging import MMLogger
from PIL import Image

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
    ignored, as in torchvision and in the latent cache.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or no image.
    """

    def __init__(
        self, *, imdecode_backend: str = 'pillow', color_type: str = 'color_ignore_orientation', **kwargs: Any
    ) -> None:
        super().__init__(imdecode_backend=imdecode_backend, color_type=color_type, **kwargs)

    def transform(self, results: dict) -> dict | None:
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
