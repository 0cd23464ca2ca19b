"""What is wrong with an ADE20K folder is named before training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from usp_mm.segmentation import ADE20KFolder, DemoScenes

PIPELINE = [dict(type='LoadImage'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


@pytest.fixture
def scenes(demo_data, tmp_path):
    shutil.copytree(demo_data / 'ade20k', tmp_path / 'ade20k')
    return tmp_path / 'ade20k'


def build(root, split='training', kind='DemoScenes', steps=PIPELINE):
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    return DATASETS.build(
        dict(type=kind, data_root=str(root), data_prefix=prefix, pipeline=[dict(s, _scope_='mmseg') for s in steps])
    )


def test_labels_are_shifted_and_complete(scenes):
    dataset = build(scenes)
    assert isinstance(dataset, DemoScenes) and len(dataset) == 6
    raw = np.array(Image.open(dataset.get_data_info(0)['seg_map_path']))
    loaded = dataset[0]['data_samples'].gt_sem_seg.data[0].numpy()
    np.testing.assert_array_equal(loaded, np.where(raw == 0, 255, raw - 1))


def test_a_missing_split(scenes):
    shutil.rmtree(scenes / 'images' / 'validation')
    with pytest.raises(FileNotFoundError, match=r"folder '.*images/validation' does not exist: ADE20K has images and"):
        build(scenes, 'validation')


def test_an_image_without_label_map_and_the_reverse(scenes):
    first = sorted((scenes / 'annotations' / 'training').iterdir())[0]
    first.rename(scenes / 'kept.png')
    with pytest.raises(FileNotFoundError, match=rf"no label map for 1 of 6 images, such as '{first.stem}.jpg'"):
        build(scenes)
    (scenes / 'kept.png').rename(first)
    (scenes / 'images' / 'training' / f'{first.stem}.jpg').unlink()
    with pytest.raises(ValueError, match=rf"no image for 1 of 6 label maps, such as '{first.stem}.png'"):
        build(scenes)


def test_an_empty_folder(scenes):
    for image in (scenes / 'images' / 'training').iterdir():
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"no '\*\.jpg' in '.*images/training'"):
        build(scenes)


@pytest.mark.parametrize(
    ('kind', 'label', 'valid'),
    [
        ('DemoScenes', 12, '11 classes are labelled 1 to 11, 0 or 255'),
        ('ADE20KFolder', 151, '150 classes are labelled 1 to'),
    ],
)
def test_a_label_out_of_range(scenes, kind, label, valid):
    dataset = build(scenes, kind=kind)
    assert isinstance(dataset, ADE20KFolder)
    path = dataset.get_data_info(0)['seg_map_path']
    labels = np.array(Image.open(path))
    labels[3, 4] = label
    Image.fromarray(labels).save(path)
    with pytest.raises(ValueError, match=rf"label {label} in '{path}': {valid}"):
        dataset[0]


def test_a_truncated_label_map(scenes):
    dataset = build(scenes)
    path = dataset.get_data_info(0)['seg_map_path']
    with open(path, 'r+b') as file:
        file.truncate(60)
    with pytest.raises(ValueError, match=rf"cannot decode '.*' or its label map '{path}'"):
        dataset[0]


def tag(path, orientation):
    """Give a JPEG an EXIF orientation; its pixels stay as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    segment = exif.tobytes()
    content = path.read_bytes()
    path.write_bytes(content[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + content[2:])


@pytest.mark.parametrize('step', [dict(type='LoadImage'), dict(type='LoadImageFromFile', imdecode_backend='pillow')])
def test_a_picture_that_is_to_be_turned_beside_its_labels_is_refused(scenes, step):
    """Training and validation: the label map has no orientation of its own."""
    dataset = build(scenes, steps=[step, *PIPELINE[1:]])
    path = Path(dataset.get_data_info(0)['img_path'])
    stored, before = path.read_bytes(), dataset[0]['inputs']
    for orientation in (1, 3, 6):
        path.write_bytes(stored)
        tag(path, orientation)
        if orientation == 1:
            assert dataset[0]['inputs'].equal(before)
            continue
        with pytest.raises(
            ValueError, match=rf"'{path}' is to be turned by its EXIF orientation, and its label map '.*png' has"
        ):
            dataset[0]


def test_hidden_files_are_neither_images_nor_labels(scenes):
    paths = [info['img_path'] for info in build(scenes).load_data_list()]
    for folder, ending in (('images', 'jpg'), ('annotations', 'png')):
        (scenes / folder / 'training' / '.ipynb_checkpoints').mkdir()
        (scenes / folder / 'training' / '.ipynb_checkpoints' / f'a.{ending}').touch()
    (scenes / 'images' / 'training' / '._train_0000.jpg').touch()
    assert len(paths) == 6 and [info['img_path'] for info in build(scenes).load_data_list()] == paths
