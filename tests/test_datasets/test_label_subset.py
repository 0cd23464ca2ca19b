"""Few labels: which samples are chosen, and where the choice is told."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_codec import fake_codec, image_folder
from mmengine.dataset import ConcatDataset, RepeatDataset

from usp_mm.datasets import EpochIndex, ImageFolder, LatentCacheDataset
from usp_mm.datasets.label_subset import label_subset
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.functional.random import STREAMS, uniform

LABELS = np.array([2, 0, 1, 0, 2, 1, 0, 1, 2, 0] * 6)
NAMES = ('a', 'b', 'c')


def chosen(per_class: int, seed: int = 0, labels: np.ndarray = LABELS) -> list[int]:
    return label_subset(labels, per_class, seed, NAMES, 'these data').tolist()


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp('images'), {'a': 20, 'b': 30}, side=(32, 32))


@pytest.fixture(scope='module')
def cache(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('cache')
    write_cache(str(images), out, fake_codec(), CacheSpec(img_size=32, dtype='float32', shard_size=8), 16, 0)
    return out


@pytest.mark.parametrize('per_class', [1, 2, 5, 18])
def test_every_class_has_as_many(per_class: int) -> None:
    rows = chosen(per_class)
    assert np.bincount(LABELS[rows]).tolist() == [per_class] * 3
    assert rows == sorted(set(rows))


def test_fewer_labels_are_among_more() -> None:
    for seed in (0, 1, 2**55):
        sets = [set(chosen(per_class, seed)) for per_class in (1, 2, 3, 5, 10, 18)]
        assert all(few < more for few, more in pairwise(sets))


def test_the_choice_is_a_function_of_seed_and_row() -> None:
    draws = uniform(torch.arange(60), torch.zeros(60, dtype=torch.int64), 1, seed=7, stream='label_subset')[:, 0].tolist()
    by_hand = [row for c in range(3) for row in sorted((i for i in range(60) if LABELS[i] == c), key=draws.__getitem__)[:4]]
    assert chosen(4, 7) == sorted(by_hand)
    assert len({tuple(chosen(4, seed)) for seed in range(20)}) == 20
    longer = np.append(LABELS, 1)  # one more sample of class 1 leaves the others of every other class alone
    kept = [row for row in chosen(4, 7) if LABELS[row] != 1]
    assert [row for row in chosen(4, 7, longer) if longer[row] != 1] == kept
    assert list(STREAMS)[14:] == ['label_subset', 'denoising_loss', 'route'], 'a new stream comes last'


def test_another_process_chooses_the_same() -> None:
    code = (
        'import numpy as np, torch; torch.manual_seed(5); from usp_mm.datasets.label_subset import label_subset; '
        "print(label_subset(np.array([2, 0, 1, 0, 2, 1, 0, 1, 2, 0] * 6), 5, 3, 'abc', '').tolist())"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(chosen(5, 3))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(per_class=19), r"^class 'b' of these data has 18 samples, fewer than labels_per_class=19: ask for 18 or fewer$"),
        (dict(per_class=0), r'^labels_per_class=0 must be 1 or more, or None for every label$'),
        (dict(per_class=-1), r'^labels_per_class=-1 must be 1 or more'),
        (dict(seed=-1), r'^labels_seed=-1 must be from 0 to 2\^56 - 1$'),
        (dict(classes=None), r'^these data has no classes, of which labels_per_class=2 could choose: use a labelled data set$'),
        (dict(classes=(*NAMES, 'd')), r"^class 'd' of these data has no sample, so labels_per_class=2 is not there: leave"),
    ],
)
def test_what_cannot_be_chosen_is_refused(change: dict, message: str) -> None:
    arguments = {'per_class': 2, 'seed': 0, 'classes': NAMES, 'where': 'these data', **change}
    with pytest.raises(ValueError, match=message):
        label_subset(LABELS, **arguments)


def test_a_cache_and_its_images_have_the_same_labels(images: Path, cache: Path) -> None:
    whole = ImageFolder(str(images))
    for per_class, seed in ((1, 0), (5, 3), (20, 1)):
        few = dict(labels_per_class=per_class, labels_seed=seed)
        pictures, latents = ImageFolder(str(images), **few), LatentCacheDataset(str(cache), flip=False, **few)
        rows = label_subset(whole.get_gt_labels(), per_class, seed, whole.CLASSES, '')
        paths = [Path(whole.get_data_info(row)['img_path']).relative_to(images) for row in rows]
        assert [Path(pictures.get_data_info(i)['img_path']).relative_to(images) for i in range(len(pictures))] == paths
        assert [Path(latents.get_data_info(i)['img_path']) for i in range(len(latents))] == paths
        assert pictures.get_gt_labels().tolist() == latents.get_gt_labels().tolist() == [0] * per_class + [1] * per_class
        assert pictures.CLASSES == latents.CLASSES == ('a', 'b')


def test_without_the_option_all_samples_are_there(images: Path, cache: Path) -> None:
    assert len(ImageFolder(str(images))) == len(LatentCacheDataset(str(cache))) == 50


def test_a_cached_sample_shows_the_view_of_its_own_row(cache: Path) -> None:
    whole, few = LatentCacheDataset(str(cache)), LatentCacheDataset(str(cache), labels_per_class=6)
    rows = label_subset(whole.get_gt_labels(), 6, 0, whole.CLASSES, '').tolist()
    for epoch in range(3):
        for i, row in enumerate(rows):
            assert torch.equal(few[EpochIndex(i, epoch, 9)]['inputs'], whole[EpochIndex(row, epoch, 9)]['inputs'])


def test_too_few_samples_are_refused_by_both(images: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match=r"class 'a' of '.*' has 20 samples, fewer than labels_per_class=21"):
        ImageFolder(str(images), labels_per_class=21)
    with pytest.raises(ValueError, match=r"class 'a' of latent cache '.*' has 20 samples, fewer than labels_per_class=21"):
        LatentCacheDataset(str(cache), labels_per_class=21)
    with pytest.raises(ValueError, match='has no classes, of which labels_per_class=1 could choose'):
        ImageFolder(str(images), with_label=False, labels_per_class=1)


def test_run_info_finds_the_choice_below_wrappers(cache: Path) -> None:
    from usp_mm.engine.records.run_info import _few_labels

    whole = LatentCacheDataset(str(cache), flip=False)
    few = LatentCacheDataset(str(cache), flip=False, labels_per_class=3, labels_seed=4)
    assert _few_labels(RepeatDataset(few, 2)) == dict(labels_per_class=3, labels_seed=4)
    assert _few_labels(ConcatDataset([few])) == dict(labels_per_class=3, labels_seed=4)
    assert _few_labels(whole) == dict(labels_per_class=None, labels_seed=None)
