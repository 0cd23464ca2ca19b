"""Crops of the cache writer."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, RandomResizedCrop, Resize

from usp_mm.datasets.latent_cache.crops import center_crop, random_crop


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_center_crop_is_bicubic_resize_and_crop() -> None:
    image = noise(90, 60)
    expected = CenterCrop(48)(Resize(48, InterpolationMode.BICUBIC)(image))
    assert np.array_equal(center_crop(image, 48), expected)


def test_center_crop_halves_large_images_first() -> None:
    image = noise(208, 136)
    expected = CenterCrop(48)(Resize(48, InterpolationMode.BICUBIC)(image.resize((104, 68), Image.Resampling.BOX)))
    assert np.array_equal(center_crop(image, 48), expected)


@pytest.mark.parametrize('size', [(33, 47), (16, 31), (500, 20), (16, 16)])
def test_center_crop_has_the_size(size: tuple[int, int]) -> None:
    assert center_crop(noise(*size), 16).size == (16, 16)


def test_random_crop_is_torchvisions() -> None:
    image = noise(90, 60)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = RandomResizedCrop(32, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC)(image)
        assert np.array_equal(random_crop(image, 32, (0.2, 1.0), seed), expected)


def test_random_crop_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    random_crop(noise(20, 20), 8, (0.2, 1.0), 99)
    assert torch.equal(torch.rand(2), expected)
