"""Pipeline steps that mmpretrain lacks."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.logging import MMLogger
from PIL import Image

from usp_mm.functional.random import normal
from usp_mm.images import load_decoded
from usp_mm.registry import TRANSFORMS

from .epoch_index import EpochIndex
from .latent_cache.crops import center_crop
from .seeding import seed_all

#: Standard deviations of Gaussian noise on images in [0, 1] at severities 1 to 5 (ImageNet-C, arXiv 1903.12261).
NOISE_SEVERITIES = (0.08, 0.12, 0.18, 0.26, 0.38)


@TRANSFORMS.register_module()
class SeedBySample(BaseTransform):
    """Seed `random`, NumPy and PyTorch from (seed, epoch, sample), as the first step of a random pipeline.

    All later steps then draw the same numbers for a sample, whatever the number of workers and processes, and after a
    resume. Inside a wrapper, the sample is the one that the sampler drew, see `EpochIndex`. This step needs `EpochSampler`:
    with another sampler it warns and keeps the worker's own random state, as it does for additional images that a wrapper
    draws by itself (mmseg's `MultiImageMixDataset`).

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
            seed_all(index.seed, index.epoch, index.sample)
        elif not self._warned:
            self._warned = True
            MMLogger.get_current_instance().warning(
                'SeedBySample got an index without an epoch, so augmentations are random but not reproducible: '
                "use sampler=dict(type='EpochSampler') (with that sampler, the index is of a wrapper that draws further "
                'images itself, as MultiImageMixDataset does: these follow from the seed of the image that they are mixed with)'
            )
        return results


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's `LoadImageFromFile` with the decoder `usp_mm.images.decode_image`: uint8[H, W, 3], BGR.

    Images that are already decoded, as by mmpretrain's inferencers, pass unchanged. An image with a label map must be stored
    upright, since it is not known whether its labels were drawn on the image as stored or as displayed.

    Args:
        to_float32: Whether to convert the pixels to float32.
        ignore_empty: Whether to return None for a file that can't be decoded; mmengine's data sets then take another sample.
        backend_args: Arguments of the mmengine file backend.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file can't be decoded, or it has a label map and an orientation other than upright.
    """

    def __init__(self, to_float32: bool = False, ignore_empty: bool = False, *, backend_args: dict | None = None) -> None:
        super().__init__(to_float32, 'color', 'pillow', ignore_empty=ignore_empty, backend_args=backend_args)

    def transform(self, results: dict) -> dict | None:
        if 'img' in results and 'img_path' not in results:
            return results
        try:
            image, turned, _ = load_decoded(results['img_path'], self.backend_args)
        except (FileNotFoundError, ValueError):
            if self.ignore_empty:
                return None
            raise
        if turned and 'seg_map_path' in results:
            raise ValueError(
                f"image '{results['img_path']}' is to be turned by its EXIF orientation, and its label map "
                f"'{results['seg_map_path']}' has none: store the image upright (mogrify -auto-orient), or delete the tag"
            )
        img = np.array(image)[:, :, ::-1]
        results['img'] = img.astype(np.float32) if self.to_float32 else img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results


@TRANSFORMS.register_module()
class ADMCenterCrop(BaseTransform):
    """Crop the central square of an image, resized as in ADM, DiT and the latent cache.

    Args:
        size: Side of the crop in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        results['img'] = np.array(center_crop(Image.fromarray(results['img']), self.size))
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class GaussianNoise(BaseTransform):
    """Add ImageNet-C's Gaussian noise: clip(x / 255 + std · N(0, 1), 0, 1) · 255 (arXiv 1903.12261).

    The noise of sample i depends only on (seed, i), not on epoch, batch or process. With `EpochSampler`, i is the number that
    the sampler drew, and otherwise the index in the data set of this transform. Put this step after the crop, just before
    `PackInputs`.

    Args:
        severity: Severity from 1 to 5; see `NOISE_SEVERITIES`.
        std: Standard deviation for images in [0, 1], instead of a severity.
        seed: Seed of the noise.
        to_uint8: Whether to truncate to uint8, as in ImageNet-C's files and the official robustness runs; float32 otherwise.

    Raises:
        ValueError: Not exactly one of `severity` and `std` is given, it is out of range, or a sample has no 'sample_idx'.
    """

    def __init__(self, severity: int | None = None, std: float | None = None, seed: int = 0, to_uint8: bool = False) -> None:
        if (severity is None) == (std is None):
            raise ValueError(f'GaussianNoise takes exactly one of severity={severity} and std={std}')
        if severity is not None and severity not in range(1, len(NOISE_SEVERITIES) + 1):
            raise ValueError(f'GaussianNoise severity={severity} must be 1 to {len(NOISE_SEVERITIES)}')
        if std is not None and not std >= 0:
            raise ValueError(f'GaussianNoise std={std} must be 0 or more')
        if std is None:
            assert severity is not None
            std = NOISE_SEVERITIES[severity - 1]
        self.std, self.seed = std, seed
        self.to_uint8 = to_uint8

    def transform(self, results: dict) -> dict:
        index = results.get('sample_idx')
        if index is None:
            raise ValueError(f"GaussianNoise needs 'sample_idx', which mmengine's BaseDataset sets, got {sorted(results)}")
        img = results['img']
        sample = torch.tensor([index.sample if isinstance(index, EpochIndex) else int(index)])
        noise = normal(sample, torch.zeros_like(sample), img.shape, seed=self.seed, stream='image_noise')[0].numpy()
        noisy = np.clip(img / np.float32(255) + np.float32(self.std) * noise, 0, 1) * np.float32(255)
        results['img'] = noisy.astype(np.uint8) if self.to_uint8 else noisy
        return results
