"""Reading a latent cache."""

import json
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_codec import fake_codec, image_folder
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from usp_mm.datasets import EpochIndex, LatentCacheDataset
from usp_mm.datasets.latent_cache import collate_latents, read_manifest
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.functional.random import uniform
from usp_mm.runtime.machine_errors import explain_machine


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp('images'), {'a': 20, 'b': 30}, side=(32, 32))


@pytest.fixture(scope='module')
def cache(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(images, tmp_path_factory.mktemp('cache'))


def write(images: Path, out: Path, **spec) -> Path:
    write_cache(
        str(images), out, fake_codec(), CacheSpec(**{**dict(img_size=32, dtype='float32', shard_size=8), **spec}), 16, 0
    )
    return out


def views(cache: Path) -> Tensor:
    """float32[N, V, 2C, h, w], read without the package's reader."""
    records = np.concatenate([np.load(path) for path in sorted(cache.glob('shard-*.npy'))])
    return torch.from_numpy(np.concatenate([records['mean'], records['logvar']], axis=2))


def chosen_views(dataset: LatentCacheDataset, stored: Tensor, epoch: int = 0, seed: int = 0) -> list[int]:
    """Which view each sample shows."""
    samples = dataset.__getitems__([EpochIndex(i, epoch, seed) for i in range(len(dataset))])
    matches = [(stored[i] == sample['inputs']).flatten(1).all(1) for i, sample in enumerate(samples)]
    assert all(match.sum() == 1 for match in matches)
    return [int(match.int().argmax()) for match in matches]


def test_first_view_for_validation(cache: Path) -> None:
    dataset = LatentCacheDataset(str(cache), flip=False)
    assert len(dataset) == 50
    for i, sample in enumerate(dataset[i] for i in range(50)):
        assert torch.equal(sample['inputs'], views(cache)[i, 0])
        assert sample['inputs'].dtype == torch.float32
        assert sample['data_samples'].gt_label.tolist() == [int(i >= 20)]
        assert sample['data_samples'].sample_idx == i


def test_batch_is_its_samples_in_order(cache: Path) -> None:
    """Over several shards, with repeats and from the end."""
    dataset = LatentCacheDataset(str(cache))
    indices = [EpochIndex(i, 4, 2) for i in (49, 3, 8, 3, 25, -1, 0, 41)]
    batch = dataset.__getitems__(indices)
    for index, sample in zip(indices, batch, strict=True):
        alone = dataset[index]
        assert torch.equal(sample['inputs'], alone['inputs'])
        assert sample['data_samples'].sample_idx == alone['data_samples'].sample_idx == index % 50
        assert sample['data_samples'].gt_label == alone['data_samples'].gt_label
    assert (batch[0]['data_samples'].sample_idx.epoch, batch[5]['data_samples'].sample_idx.seed) == (4, 2)
    for index in (50, -51):
        with pytest.raises(IndexError, match=f'index {index} is out of range for 50 samples'):
            dataset[index]


@pytest.mark.parametrize('num_workers', [0, 1])
def test_more_shards_than_files_may_be_open(num_workers: int, images: Path, tmp_path: Path) -> None:
    """A mapped shard takes one; where 30 more may be open, 50 shards are one line with the fix."""
    dataset = LatentCacheDataset(str(write(images, tmp_path / 'cache', shard_size=1)))
    loader = DataLoader(
        dataset,
        50,
        collate_fn=collate_latents,
        num_workers=num_workers,
        multiprocessing_context='fork' if num_workers else None,
    )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = set(map(int, os.listdir('/proc/self/fd')))
    limit = sorted(set(range(4096)) - used)[29] + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        with pytest.raises(OSError, match='Too many open files') as error:
            next(iter(loader))
        assert explain_machine(error.value) == (
            f'this needs more than the {limit} files that a process may have open here: `ulimit -n 4096`, or fewer num_workers'
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(next(iter(loader))['inputs']) == 50


def test_flip_follows_the_stream(cache: Path) -> None:
    dataset, stored = LatentCacheDataset(str(cache)), views(cache)
    for epoch, seed in ((0, 0), (7, 0), (7, 3)):
        draws = uniform(torch.arange(50), torch.full((50,), epoch), 1, seed=seed, stream='flip')[:, 0]
        assert chosen_views(dataset, stored, epoch, seed) == (draws < 0.5).int().tolist()
    assert torch.equal(dataset[7]['inputs'], dataset[EpochIndex(7, 0, 0)]['inputs']), 'a plain int is epoch 0, seed 0'


def test_index_without_epoch_warns_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: warnings.append(message))
    for dataset in (LatentCacheDataset(str(cache), flip=False), LatentCacheDataset(str(cache))):
        dataset[EpochIndex(3, 1)], dataset[3], dataset[4]
    assert len(warnings) == 1
    assert "use sampler=dict(type='EpochSampler'), or flip=False" in warnings[0]


def test_random_crops_and_flips_are_all_drawn(images: Path, tmp_path: Path) -> None:
    cache = write(images, tmp_path, random_crops=3)
    dataset, stored = LatentCacheDataset(str(cache)), views(cache)
    drawn = [view for epoch in range(12) for view in chosen_views(dataset, stored, epoch)]
    assert (np.bincount(drawn, minlength=6) / len(drawn)) == pytest.approx(np.full(6, 1 / 6), abs=0.05)
    assert set(chosen_views(LatentCacheDataset(str(cache), flip=False), stored)) == {0}


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('collate', ['default_collate', 'collate_latents'])
def test_in_a_runners_loader(cache: Path, num_workers: int, collate: str) -> None:
    loader = Runner.build_dataloader(
        dict(
            dataset=dict(type='LatentCacheDataset', data_root=str(cache), vae='sd-f8d4', img_size=32, num_samples=50),
            sampler=dict(type='EpochSampler', shuffle=True),
            batch_size=16,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=dict(type=collate),
        ),
        seed=5,
    )
    dataset = LatentCacheDataset(str(cache))
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        seen = []
        for batch in loader:
            assert batch['inputs'].shape[1:] == (8, 4, 4)
            for inputs, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
                index = sample.sample_idx
                assert (index.epoch, index.seed) == (epoch, 5)
                assert torch.equal(inputs, dataset[index]['inputs'])
                assert sample.gt_label.tolist() == [int(index >= 20)]
                seen.append(int(index))
        assert sorted(seen) == list(range(50))


def test_collate_latents_copies_only_what_is_scattered(cache: Path) -> None:
    dataset = LatentCacheDataset(str(cache))
    batch = dataset.__getitems__(range(6))
    whole = collate_latents(batch)
    assert whole['inputs'].data_ptr() == batch[0]['inputs'].data_ptr()
    for scattered in (batch[::-1], batch[:4], [dataset[i] for i in range(6)], batch[:3] + dataset.__getitems__(range(3))):
        collated = collate_latents(scattered)['inputs']
        assert torch.equal(collated, torch.stack([sample['inputs'] for sample in scattered]))
        assert collated.data_ptr() != batch[0]['inputs'].data_ptr()


def test_pickling_leaves_the_maps_behind(cache: Path) -> None:
    dataset = LatentCacheDataset(str(cache))
    before = len(pickle.dumps(dataset))
    dataset.__getitems__([EpochIndex(i) for i in range(50)])
    assert len(dataset._latents.maps) == 7
    assert len(pickle.dumps(dataset)) == before
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert copy._latents.maps == {}
    assert torch.equal(copy[33]['inputs'], dataset[33]['inputs'])


def test_mmpretrain_interface(cache: Path) -> None:
    dataset = LatentCacheDataset(str(cache), metainfo=dict(palette=[1]))
    assert dataset.metainfo == dict(classes=('a', 'b'), palette=[1])
    assert dataset.get_cat_ids(20) == [1]
    assert dataset.get_gt_labels().tolist() == [0] * 20 + [1] * 30
    assert dataset.get_data_info(-1) == dict(sample_idx=49, img_path='b/9.png', gt_label=1)
    subset = dataset.get_subset([45, 2])
    assert (len(subset), len(dataset)) == (2, 50)
    assert subset.get_cat_ids(0) == [1]
    assert torch.equal(subset[1]['inputs'], dataset[2]['inputs'])
    assert [len(dataset.get_subset(n)) for n in (10, -3)] == [10, 3]
    assert 'Number of samples: \t50' in repr(dataset)


def test_other_names_of_its_classes(cache: Path) -> None:
    assert LatentCacheDataset(str(cache), metainfo=dict(classes=['cat', 'dog'])).CLASSES == ['cat', 'dog']
    with pytest.raises(
        ValueError, match=r"latent cache '.*' has the classes that the config names in another order \(moved 'a'"
    ):
        LatentCacheDataset(str(cache), metainfo=dict(classes=['b', 'a']))
    with pytest.raises(ValueError, match=r"latent cache '.*' holds 2 classes, the config names 3"):
        LatentCacheDataset(str(cache), metainfo=dict(classes=['a', 'b', 'c']))


def test_cache_of_means(images: Path, tmp_path: Path) -> None:
    dataset = LatentCacheDataset(str(write(images, tmp_path, store='mean')), flip=False)
    moments = dataset[0]['inputs']
    codec = fake_codec()
    assert (moments[4:] == -30).all()
    noise = torch.randn(1, 4, 4, 4)
    assert torch.allclose(codec.sample(moments[None], noise), codec.mode(moments[None]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ('expected', 'message'),
    [
        (dict(vae='kl-f16d16'), "vae: 'sd-f8d4' in the cache, 'kl-f16d16' in the config"),
        (
            dict(vae_hash='0' * 16),
            f"vae_weight_hash: '{fake_codec().weight_hash}' in the cache, '0000000000000000' in the config",
        ),
        (dict(img_size=224), 'image_size: 32 in the cache, 224 in the config'),
        (dict(num_samples=51), 'num_samples: 50 in the cache, 51 in the config'),
    ],
)
def test_another_cache_is_refused(cache: Path, expected: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentCacheDataset(str(cache), **expected)


def test_incomplete_and_damaged_caches_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no latent cache in '{tmp_path}': write one with 'usp cache write'"):
        LatentCacheDataset(str(tmp_path))
    write(images, tmp_path)
    with (tmp_path / 'shard-00002.npy').open('ab') as file:
        file.write(b'x')
    (tmp_path / 'shard-00004.npy').unlink()
    with pytest.raises(ValueError, match=r'shard-00002.npy, shard-00004.npy missing or of the wrong size: run the same'):
        LatentCacheDataset(str(tmp_path))
    (tmp_path / 'manifest.json').unlink()
    with pytest.raises(FileNotFoundError, match=r"is incomplete: run the same 'usp cache write' command again"):
        LatentCacheDataset(str(tmp_path))


def test_one_view_cannot_flip(images: Path, tmp_path: Path) -> None:
    write(images, tmp_path, flip=False)
    with pytest.raises(ValueError, match='holds one view of each image, so flip=True has nothing to choose: set flip=False'):
        LatentCacheDataset(str(tmp_path))
    assert len(LatentCacheDataset(str(tmp_path), flip=False)) == 50


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"vae": ', 'is no JSON file'),
        ('{"vae": "sd-f8d4"}', r"manifest\.json': format_version is missing, expected a whole number$"),
        (None, 'has format version 99, this package reads 1'),
    ],
)
def test_manifests_that_are_none(cache: Path, tmp_path: Path, content: str | None, message: str) -> None:
    content = content or json.dumps(dict(read_manifest(cache), format_version=99))
    (tmp_path / 'manifest.json').write_text(content)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)
