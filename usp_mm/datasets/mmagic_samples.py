"""Convert generated images to and from the data samples that mmagic's loops, metrics and hooks take."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_mmagic(images: Tensor, index: Tensor, label: Tensor) -> list:
    """Turn RGB images uint8[N, 3, H, W] with their sample numbers and classes, int64[N], into mmagic's data samples.

    Each sample has `fake_img` (float32[3, H, W], BGR in [0, 255], as mmagic's generators give it), `sample_idx` and `gt_label`.
    """
    from mmagic.structures import DataSample

    results = []
    for image, number, y in zip(images.flip(1).float(), index.tolist(), label, strict=True):
        result = DataSample(fake_img=image, metainfo=dict(sample_idx=number))
        result.set_gt_label(y)
        results.append(result)
    return results


def from_mmagic(data_samples: Sequence[dict[str, Any]]) -> tuple[list[int], Tensor]:
    """Return the sample numbers and the RGB images uint8[N, 3, H, W] of data samples, in the dict form that metrics receive.

    Raises:
        ValueError: A sample has no `fake_img` or no `sample_idx`.
    """
    for name in ('fake_img', 'sample_idx'):
        if any(name not in sample for sample in data_samples):
            raise ValueError(
                f"generated samples lack '{name}' (they have {sorted(data_samples[0])}): "
                'this metric takes what LatentDiffusionGenerator gives'
            )
    images = torch.stack([sample['fake_img'] for sample in data_samples]).flip(1)
    if images.is_floating_point():
        images = images.round().clamp(0, 255).to(torch.uint8)
    return [int(sample['sample_idx']) for sample in data_samples], images
