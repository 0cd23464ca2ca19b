"""Which pictures of a folder are used, why others are not, and what becomes of them."""

import os

import numpy as np
import pytest
from PIL import Image

from usp_mm.own_pictures.pictures import copy_pictures, held_out
from usp_mm.own_pictures.scan import Picture, scan_pictures


def picture(side, seed=0):
    pixels = np.random.RandomState(seed).randint(0, 256, (side, side * 3 // 2, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path):
    """Two classes of three usable pictures, one of them in a nested folder, and one file of each kind that is left out."""
    root = tmp_path / 'photos'
    for name in ('cat/nested', 'dog', 'empty'):
        (root / name).mkdir(parents=True)
    rotated = Image.Exif()
    rotated[0x112] = 6
    picture(40).save(root / 'cat/a.webp')
    picture(40).save(root / 'cat/b.jpg', exif=rotated)
    picture(200).convert('L').save(root / 'cat/nested/c.png')
    picture(40).convert('CMYK').save(root / 'dog/d.jpg')
    picture(40).save(root / 'dog/e.png')
    picture(40).save(root / 'dog/f.JPG', format='JPEG')
    picture(8).save(root / 'dog/small.png')
    picture(64).save(root / 'dog/cut.jpg')
    (root / 'dog/cut.jpg').write_bytes((root / 'dog/cut.jpg').read_bytes()[:-900])
    (root / 'cat/nothing.png').write_bytes(b'')
    (root / 'empty/lost.png').write_bytes(b'no picture')
    (root / 'notes.txt').write_text('no picture')
    (root / '.hidden.png').write_bytes(b'')
    return root


def test_found_used_and_left_out(photos):
    scan = scan_pictures(photos)
    assert scan.found == 12 and scan.classes == ('cat', 'dog') and scan.shorter_side == 40
    assert [(one.path, one.label) for one in scan.pictures] == [
        ('cat/a.webp', 0), ('cat/b.jpg', 0), ('cat/nested/c.png', 0),
        ('dog/cut.jpg', 1), ('dog/d.jpg', 1), ('dog/e.png', 1), ('dog/f.JPG', 1),
    ]  # fmt: skip
    assert scan.left_out == {
        'not a picture': ['1 × .txt'],
        'hidden': ['.hidden.png'],
        'broken file': ['cat/nothing.png', 'empty/lost.png'],
        'smaller than 16 pixels': ['dog/small.png'],
    }
    first, *lines = scan.lines()
    assert first == f"'{photos}': 12 files found, 7 pictures used, 5 files left out"
    assert '  left out, broken file: 2 (cat/nothing.png, empty/lost.png)' in lines and lines[-1] == '  2 classes: cat 3, dog 4'


def test_the_numbers_of_files_are_right_and_one_is_singular(tmp_path):
    for i in range(5):
        picture(40).save(tmp_path / f'{i}.png')
    assert next(scan_pictures(tmp_path).lines()) == f"'{tmp_path}': 5 files found, 5 pictures used, 0 files left out"
    (tmp_path / 'notes.txt').touch()
    assert next(scan_pictures(tmp_path).lines()) == f"'{tmp_path}': 6 files found, 5 pictures used, 1 file left out"
    for i in range(29):
        (tmp_path / f'{i}.txt').touch()
    first, second, *_ = scan_pictures(tmp_path).lines()
    assert first == f"'{tmp_path}': 35 files found, 5 pictures used, 30 files left out"
    assert second == '  left out, not a picture: 30 (30 × .txt)'
    for i in range(1, 5):
        (tmp_path / f'{i}.png').unlink()
    with pytest.raises(ValueError, match='has 1 picture that can be used'):
        scan_pictures(tmp_path)


def test_copies_are_upright_rgb_and_whole(photos, tmp_path):
    out = tmp_path / 'copies'
    data = copy_pictures(scan_pictures(photos), out, side=48)
    assert (data['classes'], data['train'], data['val']) == (['cat', 'dog'], 4, 2)
    assert list(data['broken']) == ['dog/cut.jpg'] and 'truncated' in data['broken']['dog/cut.jpg']
    files = {path.relative_to(out).as_posix().partition('/')[2]: Image.open(path) for path in out.rglob('*.png')}
    assert sorted(files) == [
        'cat/a.webp.png', 'cat/b.jpg.png', 'cat/nested/c.png.png', 'dog/d.jpg.png', 'dog/e.png.png', 'dog/f.JPG.png'
    ]  # fmt: skip
    assert {image.mode for image in files.values()} == {'RGB'}
    assert files['cat/b.jpg.png'].size == (40, 60) and files['cat/nested/c.png.png'].size == (72, 48)
    assert sorted(path.name for path in out.iterdir()) == ['train', 'val']


def test_the_split_depends_on_names_alone():
    pictures = [Picture(f'{label}/{i}.jpg', label, (64, 64)) for label in (0, 1) for i in range(40)]
    held = held_out(pictures)
    assert len(held) == 8 and sum(path.startswith('0/') for path in held) == 4
    assert held_out(pictures[::-1]) == held
    assert held_out([Picture('a.jpg', 0, (9, 9))]) == set()


def test_a_flat_folder_is_one_class_and_two_layouts_are_refused(photos, tmp_path):
    flat = scan_pictures(photos, with_label=False)
    assert flat.classes == ('photos',) and flat.name_in_class(flat.pictures[0]) == 'photos/cat/a.webp.png'
    assert list(flat.lines())[-1] == "  one class, 'photos': no linear probe, and samples without guidance"
    picture(40).save(photos / 'beside.png')
    with pytest.raises(ValueError, match='can be read in two ways'):
        scan_pictures(photos)
    assert scan_pictures(photos, with_label=True).left_out['beside the class folders'] == ['beside.png']


def test_the_digest_changes_with_a_file(photos):
    before = scan_pictures(photos).digest
    assert scan_pictures(photos).digest == before
    os.utime(photos / 'dog/e.png', ns=(1, 1))
    assert scan_pictures(photos).digest != before


def test_too_few_pictures_are_refused_with_the_reasons(tmp_path):
    for i in range(3):
        picture(8 if i else 40).save(tmp_path / f'{i}.png')
    with pytest.raises(ValueError, match=r'has 1 picture that can be used, .* smaller than 16 pixels: 1\.png, 2\.png'):
        scan_pictures(tmp_path)
