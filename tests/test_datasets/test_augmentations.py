"""Augmentations of the official recipes."""

import random

import numpy as np
import pytest
import torch
from fake_codec import image_folder
from mmpretrain.registry import MODELS
from timm.data.random_erasing import RandomErasing

from usp_mm.datasets import EpochIndex, ImageFolder, PixelRandomErasing

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def test_crop_and_erasing_are_seeded_by_sample(tmp_path):
    steps = [
        dict(type='SeedBySample'),
        dict(type='LoadImage'),
        dict(type='ToPIL', to_rgb=True),
        dict(type='MAERandomResizedCrop', size=16, interpolation=3),
        dict(type='ToNumpy', to_bgr=True),
        dict(type='PixelRandomErasing', erase_prob=0.5),
        dict(type='PackInputs'),
    ]
    dataset = ImageFolder(str(image_folder(tmp_path, {'a': 4, 'b': 4})), pipeline=steps)

    def epoch(number):
        return [dataset[EpochIndex(i, number, seed=3)]['inputs'] for i in range(8)]

    first, again, other = epoch(1), epoch(1), epoch(2)
    assert all(x.shape == (3, 16, 16) and x.dtype == torch.float32 for x in first)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    erased = [bool((x % 1).any()) for x in first]
    assert {True, False} == set(erased)


@pytest.mark.parametrize('normalisation', [dict(), IMAGENET], ids=['half', 'imagenet'])
def test_erasing_is_timms_of_the_normalised_image(normalisation):
    """To rounding, with the same draws. RGB images, so that the channels are drawn in one order."""
    ours = PixelRandomErasing(erase_prob=0.25, to_rgb=False, **normalisation)
    timms = RandomErasing(0.25, mode='pixel', max_count=1, device='cpu')
    preprocessor = MODELS.build(dict(type='LatentDataPreprocessor', vae='pixel', to_rgb=False, **normalisation))
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    erased = 0
    for number in range(40):
        seed(number)
        found = ours(dict(img=image.copy()))['img']
        assert found.dtype == np.float32
        found = preprocessor(dict(inputs=torch.from_numpy(found).permute(2, 0, 1)[None]))['inputs'][0]
        seed(number)
        clean = preprocessor(dict(inputs=torch.from_numpy(image).permute(2, 0, 1)[None]))['inputs'][0]
        expected = timms(clean.clone())
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        erased += not torch.equal(expected, clean)
    assert 4 <= erased <= 16


def test_bgr_images_get_the_noise_of_rgb_statistics():
    seed(0)
    erasing = PixelRandomErasing(erase_prob=1.0, mean=[10, 100, 200], std=[1, 2, 4])
    image = np.zeros((400, 400, 3), np.uint8)
    found = erasing(dict(img=image))['img']
    noise = found[found.any(axis=-1)]
    assert noise.mean(0) == pytest.approx([200, 100, 10], abs=0.2)
    assert noise.std(0) == pytest.approx([4, 2, 1], rel=0.05)


@pytest.mark.parametrize('wrong', [dict(erase_prob=1.5), dict(erase_prob=-0.1), dict(count=0)])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=r'erase_prob=.* must lie in \[0, 1\] and count=.* be at least 1'):
        PixelRandomErasing(**wrong)
