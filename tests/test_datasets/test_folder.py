"""Image folders and their errors."""

import pytest
from fake_codec import image_folder, truncate_jpeg
from mmpretrain.datasets import CustomDataset
from PIL import Image

from usp_mm.datasets import ImageFolder
from usp_mm.datasets.folder import scan_image_folder
from usp_mm.evaluation.images import FolderImages


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
    (tmp_path / '3.jpg').write_bytes((tmp_path / '0.png').read_bytes())
    some = ImageFolder(str(tmp_path), with_label=False, extensions=('.jpg',))
    assert [some.get_data_info(i)['img_path'] for i in range(len(some))] == [f'{tmp_path}/3.jpg']


def test_what_does_not_count_leaves_numbers_and_order_alone(tmp_path) -> None:
    """The scan of a clean folder is that of the same folder with what operating systems and editors lay beside."""
    image_folder(tmp_path, {'b': 2, 'a-b/deep': 1, 'a': 1, 'C': 3})
    before = scan_image_folder(str(tmp_path))
    assert before.paths[:4] == ['C/0.png', 'C/1.png', 'C/2.png', 'a/0.png'] and before.classes == ('C', 'a', 'a-b', 'b')
    image_folder(tmp_path, {'.ipynb_checkpoints': 1, '__MACOSX': 1, 'a/.hidden': 1, 'a/@eaDir': 1})
    (tmp_path / 'a' / '._0.png').write_bytes(b'resource fork')
    (tmp_path / 'a' / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    (tmp_path / 'a' / 'notes.txt').touch()
    assert scan_image_folder(str(tmp_path)) == before
    assert ImageFolder(str(tmp_path)).metainfo['classes'] == before.classes


@pytest.mark.parametrize('read', [lambda root: scan_image_folder(root).paths, lambda root: FolderImages(root).files])
def test_every_format_that_pillow_reads(tmp_path, read) -> None:
    image_folder(tmp_path, {'': 1})
    for ending in ('webp', 'tiff', 'TIF', 'gif', 'jfif', 'jp2'):
        Image.open(tmp_path / '0.png').save(tmp_path / f'1.{ending}', format=Image.EXTENSION.get(f'.{ending.lower()}'))
    assert read(str(tmp_path)) == ['0.png', '1.TIF', '1.gif', '1.jfif', '1.jp2', '1.tiff', '1.webp']


def test_an_empty_sub_folder_is_no_class_of_a_flat_folder(tmp_path) -> None:
    image_folder(tmp_path, {'': 24, 'grids': 0})
    (tmp_path / 'grids' / 'deeper').mkdir()
    assert scan_image_folder(str(tmp_path)) == (sorted(f'{i}.png' for i in range(24)), None, None)
    assert FolderImages(tmp_path).num == 24
    with pytest.raises(ValueError, match=r'holds 24 images and no class folder with images: with_label=False'):
        ImageFolder(str(tmp_path))
    with pytest.raises(ValueError, match=r'holds 24 images and no class folder with images: with_label=False'):
        scan_image_folder(str(tmp_path), with_label=True)


@pytest.mark.parametrize('read', [scan_image_folder, ImageFolder, FolderImages])
def test_two_ways_to_read_a_folder_are_an_error(tmp_path, read, logged_lines) -> None:
    root = image_folder(tmp_path / 'samples', {'': 24, 'grids': 1, 'more': 2})
    with pytest.raises(
        ValueError, match=r"24 images lie in it, 3 in its sub-folders \('grids', 'more'\).*all 27 without classes"
    ):
        read(str(root))
    assert logged_lines == []
    classes, everything = read(str(root), with_label=True), read(str(root), with_label=False)
    counts = [getattr(found, 'num', None) or len(getattr(found, 'paths', found)) for found in (classes, everything)]
    assert counts == [3, 27]
    assert logged_lines == [
        (
            'warning',
            f"images of '{root}': 27 files found, 3 taken (.png 3); left out: 24 beside the class folders "
            "('0.png', '1.png', '10.png', …)",
        ),
        ('info', f"images of '{root}': 27 files found, 27 taken (.png 27)"),
    ]
    (root / 'grids').rename(root / '.grids')
    (root / 'more').rename(root / '.more')
    if read is not ImageFolder:
        assert read(str(root)) is not None


@pytest.mark.parametrize('read', [scan_image_folder, ImageFolder])
def test_errors(tmp_path, read) -> None:
    with pytest.raises(FileNotFoundError, match=f"image folder '{tmp_path}/nowhere/?' does not exist"):
        read(f'{tmp_path}/nowhere')
    root = image_folder(tmp_path / 'images', {'a': 1, 'b': 0, 'c': 1, 'd': 0})
    with pytest.raises(ValueError, match=f"no image in class folder 'b', 'd' of '{root}/?'"):
        read(str(root))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(
        FileNotFoundError, match=f"no image in '{tmp_path}/empty/?': looked for the endings of all formats that Pillow"
    ):
        read(str(tmp_path / 'empty'))
    image_folder(tmp_path / 'splits', {'train/a': 1, 'val/a': 1})
    with pytest.raises(ValueError, match=r"holds the splits .*, not classes: give one of them, like '.*/train'"):
        read(str(tmp_path / 'splits'))


@pytest.mark.parametrize('read', [scan_image_folder, ImageFolder])
def test_classes_that_are_called_like_splits(tmp_path, read) -> None:
    image_folder(tmp_path, {'train': 2, 'val': 1, 'bus': 1})
    with pytest.raises(ValueError, match=r'or with_label=True \(--layout classes of a tool\) if these are classes'):
        read(str(tmp_path))
    asked_for = read(str(tmp_path), with_label=True)
    assert (asked_for.CLASSES if read is ImageFolder else asked_for.classes) == ('bus', 'train', 'val')
    assert len(getattr(asked_for, 'paths', asked_for)) == 4


def test_number_of_named_classes_must_fit(tmp_path) -> None:
    image_folder(tmp_path, {'a': 1, 'b': 1})
    assert ImageFolder(str(tmp_path), classes=['cat', 'dog']).metainfo['classes'] == ('cat', 'dog')
    with pytest.raises(ValueError, match='holds 2 classes, the config names 3: name each, in the order of the labels'):
        ImageFolder(str(tmp_path), classes=['cat', 'dog', 'eel'])
    with pytest.raises(ValueError, match=r"the config names in another order \(moved 'a' \(0 → 1\)"):
        ImageFolder(str(tmp_path), classes=['b', 'a'])


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
