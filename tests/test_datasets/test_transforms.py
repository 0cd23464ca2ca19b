"""Pipelines that are seeded by sample."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_codec import image_folder
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from PIL import Image

from usp_mm.datasets import ADMCenterCrop, EpochIndex, ImageFolder, SeedBySample
from usp_mm.datasets.latent_cache.crops import center_crop

PIPELINE = [
    dict(type='SeedBySample'),
    dict(type='LoadImage'),
    dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp('images'), {'a': 6, 'b': 6})


def epoch_of(images: Path, num_workers: int, batch_size: int, epoch: int) -> dict[int, torch.Tensor]:
    """Sample -> augmented image, through a runner's loader."""
    loader = Runner.build_dataloader(
        dict(
            dataset=dict(type='ImageFolder', data_root=str(images), pipeline=PIPELINE),
            sampler=dict(type='EpochSampler', shuffle=True),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=dict(type='default_collate'),
        ),
        seed=11,
    )
    loader.sampler.set_epoch(epoch)
    found = {}
    for batch in loader:
        for inputs, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            assert (sample.sample_idx.epoch, sample.sample_idx.seed) == (epoch, 11), 'mmpretrain keeps the index whole'
            found[int(sample.sample_idx)] = inputs
    return found


def test_augmentation_does_not_depend_on_workers_and_batches(images: Path) -> None:
    expected = epoch_of(images, num_workers=0, batch_size=12, epoch=2)
    assert len(expected) == 12
    for num_workers, batch_size in ((0, 5), (1, 4), (2, 3)):
        found = epoch_of(images, num_workers, batch_size, epoch=2)
        assert all(torch.equal(found[i], expected[i]) for i in range(12))
    other = epoch_of(images, num_workers=0, batch_size=12, epoch=3)
    assert not any(torch.equal(other[i], expected[i]) for i in range(12))


def test_every_generator_is_seeded() -> None:
    def draws(index: EpochIndex) -> tuple[float, float, float]:
        SeedBySample()(dict(sample_idx=index))
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    reference = draws(EpochIndex(3, 2, 1))
    assert draws(EpochIndex(3, 2, 1)) == reference
    for other in (EpochIndex(4, 2, 1), EpochIndex(3, 1, 1), EpochIndex(3, 2, 0), EpochIndex(2, 3, 1)):
        assert not set(draws(other)) & set(reference)


def test_without_sample_idx() -> None:
    with pytest.raises(ValueError, match=r"SeedBySample needs 'sample_idx', .* but got only \['img'\]"):
        SeedBySample()(dict(img=0))


def test_plain_index_warns_once_and_stays_random(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: warnings.append(message))
    dataset = ImageFolder(str(images), pipeline=PIPELINE)
    first, second = dataset[0]['inputs'], dataset[0]['inputs']
    assert not torch.equal(first, second)
    assert len(warnings) == 1
    assert "use sampler=dict(type='EpochSampler')" in warnings[0]


def test_adm_center_crop_is_the_latent_caches() -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 150, 3), dtype=np.uint8)
    results = ADMCenterCrop(size=32)(dict(img=image))
    assert results['img_shape'] == (32, 32)
    assert np.array_equal(results['img'], np.asarray(center_crop(Image.fromarray(image), 32)))
