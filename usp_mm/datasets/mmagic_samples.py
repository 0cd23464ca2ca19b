"""Convert generated images, and latents of real ones, to and from the data samples of mmagic's loops, metrics and hooks."""

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


def latents_to_mmagic(latents: Tensor, data_samples: Sequence) -> list:
    """Turn latents float32[N, C, h, w] of real images into mmagic's data samples, with the fields of the given data samples.

    Each sample has `latent` (float32[C, h, w]), `sample_idx` and `gt_label`.

    Raises:
        ValueError: A given data sample is missing, or has no `sample_idx` or no `gt_label`.
    """
    from mmagic.structures import DataSample

    if len(data_samples) != len(latents):
        raise ValueError(f'{len(latents)} latents come with {len(data_samples)} data samples: give one for each')
    results = []
    for latent, sample in zip(latents, data_samples, strict=True):
        for name in ('sample_idx', 'gt_label'):
            if name not in sample:
                raise ValueError(f"a held-out latent has no '{name}': use labelled data, such as a cache of class folders")
        result = DataSample(latent=latent, metainfo=dict(sample_idx=int(sample.sample_idx)))
        result.set_gt_label(sample.gt_label)
        results.append(result)
    return results


def latents_from_mmagic(data_samples: Sequence[dict[str, Any]]) -> tuple[list[int], Tensor, Tensor]:
    """Return numbers, latents float32[N, C, h, w] and classes int64[N] of data samples, in the dict form of metrics.

    Raises:
        ValueError: A sample has no `latent`.
    """
    if any('latent' not in sample for sample in data_samples):
        raise ValueError(
            f"validation samples lack 'latent' (they have {sorted(data_samples[0])}): the denoising loss needs held-out "
            "latents, such as val_dataloader.dataset=dict(type='LatentCacheDataset', data_root=…, flip=False)"
        )
    latents = torch.stack([sample['latent'] for sample in data_samples])
    labels = torch.cat([_label(sample['gt_label']) for sample in data_samples])
    return [int(sample['sample_idx']) for sample in data_samples], latents, labels


def _label(label: Any) -> Tensor:
    return (label['label'] if isinstance(label, dict) else label).reshape(1)
