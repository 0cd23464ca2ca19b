"""Indices and checks below wrappers of data sets."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_codec import fake_codec, image_folder
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmpretrain.datasets import KFoldDataset
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import Subset

from usp_mm.datasets import EpochIndex, EpochSampler, ImageFolder, LatentCacheDataset, all_datasets, dataset_configs
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.functional.random import uniform
from usp_mm.models.random_keys import _warn_of_plain_indices, sample_keys


class Numbers(BaseDataset):
    """Sample i is ('name', sample_idx)."""

    METAINFO = dict(classes=('even', 'odd'))

    def __init__(self, num: int, name: str = '') -> None:
        self.num, self.name = num, name
        super().__init__(serialize_data=False)

    def load_data_list(self) -> list[dict]:
        return [dict(name=self.name) for _ in range(self.num)]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [int(idx == 0)]


class Forgetful(torch.utils.data.Dataset):
    """Somebody's own wrapper, which looks its indices up."""

    def __init__(self, dataset: BaseDataset, order: list) -> None:
        self.source, self.order = dataset, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict:
        return self.source[self.order[index]]


class Backwards(Forgetful):
    """Somebody's own wrapper, which counts from the end."""

    def __getitem__(self, index: int) -> dict:
        return self.source[len(self.source) - 1 - index]


def asked(dataset, number: int, epoch: int = 3, seed: int = 7) -> tuple[str, int, int]:
    """Name of the data set below that is asked, and the number there and the sample's, with epoch and seed still known."""
    sample = dataset[EpochIndex(number, epoch, seed)]
    index = sample['sample_idx']
    assert (index.epoch, index.seed) == (epoch, seed)
    return sample['name'], int(index), index.sample


def test_an_index_keeps_its_draw_through_the_arithmetic_of_wrappers() -> None:
    index = EpochIndex(11, 3, 7)
    for moved, number in (
        (index - 4, 7), (index - np.int64(4), 7), (index % 4, 3), (divmod(index, 4)[1], 3), (index + 2, 13), (2 + index, 13),
        (20 - index, 9),
    ):  # fmt: skip
        assert isinstance(moved, EpochIndex)
        assert (moved, moved.epoch, moved.seed, moved.sample) == (number, 3, 7, 11)
    last = 50 + EpochIndex(-1, 3, 7)
    assert (last, last.sample, last.epoch) == (49, 49, 3), 'a number from the end is the one from the start'
    assert type(index * 2) is int and type(index - 0.5) is type(0.5 - index) is float and divmod(index, 4)[0] == 2
    copied = pickle.loads(pickle.dumps(index.at(2)))  # noqa: S301
    assert (copied, copied.sample, copied.epoch, copied.seed) == (2, 11, 3, 7)


def test_wrappers_keep_epoch_and_seed_and_no_two_samples_share_a_number() -> None:
    a, b = Numbers(4, 'a'), Numbers(3, 'b')
    assert asked(ConcatDataset([a, b]), 5) == asked(TorchConcatDataset([a, b]), 5) == ('b', 1, 5)
    assert asked(Backwards(a, [0] * 4), 1) == ('a', 2, 1)
    assert asked(RepeatDataset(a, 3), 9) == ('a', 1, 9)
    assert asked(Subset(a, [3, 1]), 1) == ('a', 1, 1)
    assert [asked(Subset(a, [3, 1]), i) for i in (0, 1)] == [('a', 3, 0), ('a', 1, 1)]
    assert asked(ClassBalancedDataset(a, 1.0), 1) == ('a', 0, 1), 'class 1 has one sample of four, which is repeated'
    folds = KFoldDataset(dict(type=Numbers, num=4, name='a'), fold=1, num_splits=2, test_mode=True)
    assert asked(folds, 1) == ('a', 1, 1) and len(folds) == 2
    nested = TorchConcatDataset([RepeatDataset(a, 2), Subset(ConcatDataset([a, b]), [6, 0, 5])])
    found = [asked(nested, i) for i in range(len(nested))]
    assert [sample for _, _, sample in found] == list(range(11))
    assert [(name, number) for name, number, _ in found] == [('a', i % 4) for i in range(8)] + [('b', 2), ('a', 0), ('b', 1)]


def test_subset_reads_a_batch_of_the_cache_at_once(cache: Path) -> None:
    dataset = LatentCacheDataset(str(cache))
    batch = Subset(dataset, [30, 4, 9]).__getitems__([EpochIndex(2, 5, 1), EpochIndex(0, 5, 1)])
    assert [sample['data_samples'].sample_idx for sample in batch] == [9, 30]
    assert [sample['data_samples'].sample_idx.sample for sample in batch] == [2, 0]
    assert batch[0]['inputs']._base is batch[1]['inputs']._base is not None


def test_each_repetition_is_augmented_anew_and_reproducibly(tmp_path: Path) -> None:
    pipeline = [
        dict(type='SeedBySample'),
        dict(type='LoadImage'),
        dict(type='RandomCrop', crop_size=8),
        dict(type='PackInputs'),
    ]
    images = ImageFolder(str(image_folder(tmp_path, {'a': 2, 'b': 2})), pipeline=pipeline)
    repeated = RepeatDataset(images, 2)
    first, second, again = (repeated[EpochIndex(i, 1, 3)]['inputs'] for i in (1, 5, 5))
    assert not torch.equal(first, second) and torch.equal(second, again)
    assert torch.equal(first, images[EpochIndex(1, 1, 3)]['inputs'])


def test_noise_of_training_goes_by_the_number_that_was_drawn(cache: Path) -> None:
    dataset = LatentCacheDataset(str(cache), flip=False)
    both = ConcatDataset([dataset, dataset])
    samples = [both[EpochIndex(i, 4, 9)]['data_samples'] for i in (3, 53)]
    assert [int(sample.sample_idx) for sample in samples] == [3, 3]
    keys = sample_keys(samples, 2, torch.device('cpu'), training=True)
    assert (keys.sample.tolist(), keys.epoch.tolist(), keys.seed) == ([3, 53], [4, 4], 9)


def test_training_without_epochs_says_so_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: warnings.append(message))
    _warn_of_plain_indices.cache_clear()
    sample, cpu = LatentCacheDataset(str(cache), flip=False)[3]['data_samples'], torch.device('cpu')
    assert sample_keys([sample], 1, cpu, training=False).sample.tolist() == [3] and warnings == []
    drawn = [int(sample_keys([sample], 1, cpu, training=True).sample) for _ in range(2)]
    assert drawn[0] != drawn[1] and len(warnings) == 1
    assert "train_dataloader.sampler.type='EpochSampler'" in warnings[0]


def test_every_data_set_below_any_wrapper() -> None:
    a, b = Numbers(4, 'a'), Numbers(3, 'b')
    assert list(all_datasets(a)) == [a]
    repeated, other = RepeatDataset(a, 2), Forgetful(b, [0])
    both = TorchConcatDataset([repeated, other])
    assert list(all_datasets(both)) == [both, repeated, a, other, b]
    loader = Runner.build_dataloader(
        dict(dataset=dict(type=Numbers, num=4), sampler=dict(type='DefaultSampler'), batch_size=1, num_batch_per_epoch=2)
    )
    assert [type(one).__name__ for one in all_datasets(loader.dataset)] == ['_SlicedDataset', 'Numbers']
    config = Config(
        dict(d=dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=dict(type='A')), dict(type='B')]))
    ).d
    assert [one.type for one in dataset_configs(config)] == ['ConcatDataset', 'RepeatDataset', 'A', 'B']


def test_a_wrapper_that_loses_the_epoch_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    a, warnings = Numbers(4, 'a'), []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: warnings.append(message))
    for sampler in ('EpochSampler', 'EpochInfiniteSampler'):
        with pytest.raises(ValueError, match='Forgetful hands a plain int to the data set that it wraps, so the epoch and the'):
            Runner.build_dataloader(dict(dataset=Forgetful(a, [2, 0]), sampler=dict(type=sampler), batch_size=1))
    wrapped = ConcatDataset([a, a]), RepeatDataset(a, 2), ClassBalancedDataset(a, 1.0), Backwards(a, [0] * 4)
    for good in (a, Subset(a, [1]), *wrapped, range(3)):
        EpochSampler(good)
    EpochSampler(Forgetful([1, 2], [0]))  # nothing below knows of epochs
    assert not warnings
    broken = Forgetful(a, [])
    broken.order = None
    monkeypatch.setattr(Forgetful, '__len__', lambda self: 2)
    EpochSampler(broken)
    assert len(warnings) == 1 and warnings[0].startswith('whether Forgetful hands on the epoch'), warnings


class Drawing(torch.utils.data.Dataset):
    """Draws another sample of the data set below, and notes what was asked for."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.source, self.read, self.last, self.seen = dataset, [], {}, set()
        self.python, self.numpy = random.Random(1), np.random.default_rng(1)
        self.old, self.torch = np.random.RandomState(1), torch.Generator().manual_seed(1)

    def __len__(self) -> int:
        return len(self.source)

    def draws(self) -> list[float]:
        return [self.python.random(), self.numpy.random(), self.old.rand(), torch.rand(1, generator=self.torch).item()]

    def __getitem__(self, index: int) -> dict:
        self.read.append(index)
        self.last[0] = index
        self.seen.add(index)
        self.draws()
        return self.source[index]


def test_trying_a_wrapper_leaves_it_as_it_is() -> None:
    tried, fresh = Drawing(Numbers(4, 'a')), Drawing(Numbers(4, 'a'))
    EpochSampler(tried)
    assert (tried.read, tried.last, tried.seen) == ([], {}, set())
    assert tried.draws() == fresh.draws()


@pytest.fixture(scope='module')
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = image_folder(tmp_path_factory.mktemp('images'), {'a': 20, 'b': 30}, side=(32, 32))
    out = tmp_path_factory.mktemp('cache')
    write_cache(str(images), out, fake_codec(), CacheSpec(img_size=32, dtype='float32', shard_size=8), 16, 0)
    return out


def test_a_cache_shows_both_views_through_repetitions_and_concatenations(cache: Path) -> None:
    dataset = LatentCacheDataset(str(cache))
    first = LatentCacheDataset(str(cache), flip=False)

    def flipped(wrapper, numbers, epoch: int = 2) -> list[int]:
        found = (wrapper[EpochIndex(i, epoch, 5)] for i in numbers)
        return [int(not torch.equal(one['inputs'], first[int(one['data_samples'].sample_idx)]['inputs'])) for one in found]

    for wrapper in (RepeatDataset(dataset, 2), ConcatDataset([dataset, dataset]), Subset(dataset, [*range(50), *range(50)])):
        draws = uniform(torch.arange(100), torch.full((100,), 2), 1, seed=5, stream='flip')[:, 0]
        expected = (draws < 0.5).int().tolist()
        assert expected[:50] != expected[50:]
        assert flipped(wrapper, range(100)) == expected
        assert flipped(wrapper, range(50), epoch=3) != expected[:50]
    assert flipped(dataset, range(50)) == expected[:50], 'unwrapped, as ever'
