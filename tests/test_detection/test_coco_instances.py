"""Data in COCO's format are checked when the data set is built."""

import json
import shutil

import pytest

from usp_mm.datasets.demo_scenes import DemoScenes, make_demo_scenes

pytestmark = pytest.mark.mmcv_ops


@pytest.fixture
def folder(tmp_path):
    make_demo_scenes(tmp_path / 'scenes', DemoScenes(train_scenes=3, val_scenes=2, scene_size=64))
    return tmp_path / 'scenes'


def build(folder, **more):
    from usp_mm.detection import DemoEmojiScenes

    names = dict(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017'))
    return DemoEmojiScenes(data_root=str(folder), pipeline=[], **names, **more)


def test_what_is_there_is_listed(folder):
    found = build(folder)
    written = json.loads((folder / 'annotations' / 'instances_train2017.json').read_text())['annotations']
    assert len(found) == 3
    assert sum(len(found.get_data_info(i)['instances']) for i in range(3)) == len(written)


@pytest.mark.parametrize('name', ['annotations/instances_train2017.json', 'train2017', 'train2017/000000000002.jpg'])
def test_a_missing_file_is_named(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=name):
        build(folder)


def test_classes_without_category_are_refused(folder):
    with pytest.raises(ValueError, match=r"has no category 'cat' \(1 of 2 classes are missing\)"):
        build(folder, metainfo=dict(classes=['food', 'cat']))
