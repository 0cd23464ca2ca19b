"""The demo's scenes of emoji: boxes and masks say where the emoji are."""

import json

import numpy as np
import pytest
from PIL import Image

from usp_mm.datasets.demo_emoji import openmoji_folder, sort_drawings
from usp_mm.datasets.demo_scenes import DemoScenes, annotation, draw_scene, make_demo_scenes, run_lengths
from usp_mm.datasets.emoji_classes import EMOJI_CLASSES

SMALL = DemoScenes(train_scenes=5, val_scenes=3, scene_size=64)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo') / 'scenes'
    assert make_demo_scenes(folder, SMALL)
    return folder


def decoded(segmentation):
    """The mask of run lengths that begin outside, down the columns."""
    counts, (rows, columns) = segmentation['counts'], segmentation['size']
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(columns, rows).T


def test_files_are_cocos(scenes):
    for split, num in (('train', 5), ('val', 3)):
        content = json.loads((scenes / 'annotations' / f'instances_{split}2017.json').read_text())
        assert [one['name'] for one in content['categories']] == list(EMOJI_CLASSES)
        assert [one['file_name'] for one in content['images']] == sorted(p.name for p in (scenes / f'{split}2017').iterdir())
        assert len(content['images']) == num
        assert [one['id'] for one in content['annotations']] == list(range(1, len(content['annotations']) + 1))
        assert {one['image_id'] for one in content['annotations']} == {one['id'] for one in content['images']}
        for image in content['images']:
            assert Image.open(scenes / f'{split}2017' / image['file_name']).size == (64, 64)
        for one in content['annotations']:
            mask = decoded(one['segmentation'])
            x, y, width, height = one['bbox']
            assert mask.shape == (64, 64) and mask.sum() == one['area'] > 0
            assert mask[y : y + height, x : x + width].sum() == one['area']
            assert mask[y].any() and mask[y + height - 1].any() and mask[:, x].any() and mask[:, x + width - 1].any()


def test_masks_cover_what_is_drawn():
    """Of two scenes that differ in the emoji alone, the pixels outside of all masks are nearly equal."""
    emoji, _ = sort_drawings(sorted((openmoji_folder() / 'svg').glob('*.svg'))[::40], False)
    scene, things = draw_scene(np.random.RandomState(3), emoji, 96)
    union = np.any([thing.mask for thing in things], axis=0)
    assert sum(thing.mask.sum() for thing in things) == union.sum()  # they do not overlap
    assert {thing.label for thing in things} <= set(range(len(EMOJI_CLASSES)))
    inside, outside = scene[union].astype(float), scene[~union].astype(float)
    assert inside.mean() > 2 * outside.mean() and np.median(outside) < 40


def test_run_lengths_begin_outside():
    mask = np.array([[True, False], [True, True], [False, True]])
    assert run_lengths(mask) == [0, 2, 2, 2] and run_lengths(np.zeros((2, 3), bool)) == [6]
    assert run_lengths(np.ones((2, 3), bool)) == [0, 6]
    assert annotation(mask, id=7)['bbox'] == [0, 0, 2, 3] and annotation(mask, id=7)['area'] == 4


def test_the_same_again_changes_nothing_and_other_numbers_are_refused(scenes):
    assert not make_demo_scenes(scenes, SMALL)
    with pytest.raises(FileExistsError, match='holds demo data of'):
        make_demo_scenes(scenes, DemoScenes(train_scenes=6, val_scenes=3, scene_size=64))


@pytest.mark.parametrize('wrong', [dict(train_scenes=0), dict(val_scenes=0), dict(scene_size=63), dict(scene_size=513)])
def test_numbers_out_of_range_are_refused(wrong, tmp_path):
    (name,) = wrong
    with pytest.raises(ValueError, match=f'{name}={wrong[name]}'):
        make_demo_scenes(tmp_path / 'scenes', DemoScenes(**wrong))
    assert not (tmp_path / 'scenes').exists()
