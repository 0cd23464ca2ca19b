"""Image folders and their errors."""

import pytest
from fake_codec import image_folder, truncate_jpeg
from mmpretrain.datasets import CustomDataset

from usp_mm.datasets import ImageFolder
from usp_mm.datasets.folder import scan_image_folder


def test_order_is_mmpretrains(tmp_path) -> None:
    image_folder(tmp_path, {'b': 2, 'a/deep': 1, 'a': 1, 'C': 3})
    scan = scan_image_folder(str(tmp_path))
    theirs = CustomDataset(str(tmp_path))
    assert scan.classes == ('C', 'a', 'b') == theirs.metainfo['classes']
    assert scan.labels == theirs.get_gt_labels().tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert [f'{tmp_path}/{path}' for path in scan.paths] == [theirs.get_data_info(i)['img_path'] for i in range(7)]
    ours = ImageFolder(str(tmp_path))
    assert [ours.get_data_info(i) for i in range(7)] == [theirs.get_data_info(i) for i in range(7)]
    assert ours.metainfo == theirs.metainfo


def test_flat_folder(tmp_path) -> None:
    scan = scan_image_folder(str(image_folder(tmp_path, {'': 3})))
    assert scan == (['0.png', '1.png', '2.png'], None, None)
    assert len(ImageFolder(str(tmp_path), with_label=False)) == 3


@pytest.mark.parametrize('read', [scan_image_folder, ImageFolder])
def test_errors(tmp_path, read) -> None:
    with pytest.raises(FileNotFoundError, match=f"image folder '{tmp_path}/nowhere/?' does not exist"):
        read(f'{tmp_path}/nowhere')
    root = image_folder(tmp_path / 'images', {'a': 1, 'b': 0, 'c': 1, 'd': 0})
    with pytest.raises(ValueError, match=f"no image in class folder 'b', 'd' of '{root}/?'"):
        read(str(root))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=f"no image in '{tmp_path}/empty/?': looked for \\.bmp"):
        read(str(tmp_path / 'empty'))
    image_folder(tmp_path / 'splits', {'train/a': 1, 'val/a': 1})
    with pytest.raises(ValueError, match=r"holds the splits .*, not classes: give one of them, like '.*/train'"):
        read(str(tmp_path / 'splits'))


def test_number_of_named_classes_must_fit(tmp_path) -> None:
    image_folder(tmp_path, {'a': 1, 'b': 1})
    assert ImageFolder(str(tmp_path), classes=['cat', 'dog']).metainfo['classes'] == ('cat', 'dog')
    with pytest.raises(ValueError, match='holds 2 class folders, the config names 3 classes'):
        ImageFolder(str(tmp_path), classes=['cat', 'dog', 'eel'])


def test_unreadable_image_is_named(tmp_path) -> None:
    image_folder(tmp_path, {'a': 1})
    path = truncate_jpeg(tmp_path / 'a' / 'half.jpg')
    (tmp_path / 'a' / 'zero.jpg').touch()
    dataset = ImageFolder(str(tmp_path), pipeline=[dict(type='LoadImage')])
    assert dataset[0]['img'].shape == (32, 40, 3)
    with pytest.raises(ValueError, match=f"cannot decode image '{path}': image file is truncated"):
        dataset[1]
    with pytest.raises(ValueError, match=r"cannot decode image '.*/zero.jpg'"):
        dataset[2]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        dataset[1]
