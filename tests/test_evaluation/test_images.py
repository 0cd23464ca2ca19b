import hashlib

import numpy as np
import pytest
import torch
from numbered import images
from PIL import Image

from usp_mm.evaluation.images import FolderImages, NpzImages, open_images
from usp_mm.fileio.atomic import sha256


@pytest.fixture(scope='module', params=['stored', 'compressed'])
def npz(request, tmp_path_factory):
    path = tmp_path_factory.mktemp('npz') / 'samples.npz'
    save = np.savez if request.param == 'stored' else np.savez_compressed
    save(path, images(23), np.arange(23))
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two classes; the last image has another size."""
    root = tmp_path_factory.mktemp('folder')
    for i, image in enumerate(images(7)):
        (root / str(i // 4)).mkdir(exist_ok=True)
        Image.fromarray(image).resize((8, 12) if i == 6 else (8, 8)).save(root / str(i // 4) / f'{i}.png')
    return root


def everything(source, **kwargs):
    """number -> image, over all batches of all processes."""
    found = {}
    for rank in range(kwargs.get('world', 1)):
        for numbers, batch in source.batches(rank=rank, **kwargs):
            assert batch.dtype == torch.uint8 and len(numbers) == len(batch) <= kwargs['batch_size']
            assert not set(numbers) & set(found)
            found.update(zip(numbers, batch.permute(0, 2, 3, 1).numpy(), strict=True))
    return found


@pytest.mark.parametrize(('batch_size', 'world', 'num'), [(5, 1, None), (4, 3, None), (23, 2, None), (4, 2, 10)])
def test_npz_is_read_once_by_all_processes(npz, batch_size, world, num):
    source = open_images(npz)
    assert isinstance(source, NpzImages) and (source.num, source.size) == (23, (8, 8))
    found = everything(source, batch_size=batch_size, world=world, num=num)
    assert sorted(found) == list(range(num or 23))
    for number, image in found.items():
        np.testing.assert_array_equal(image, images(23)[number])
    assert source.content_hash() == hashlib.sha256(npz.read_bytes()).hexdigest()


@pytest.mark.parametrize(('batch_size', 'world', 'workers'), [(3, 1, 0), (2, 3, 0), (7, 1, 2)])
def test_folder_with_images_of_two_sizes(folder, batch_size, world, workers):
    source = open_images(folder, num_workers=workers)
    found = everything(source, batch_size=batch_size, world=world)
    assert sorted(found) == list(range(7)) and source.num == 7
    assert [found[i].shape[0] for i in range(7)] == [8] * 6 + [12]
    np.testing.assert_array_equal(np.stack([found[i] for i in range(6)]), images(6))


def test_folder_is_cropped_to_one_size(folder):
    source = FolderImages(folder, img_size=4)
    found = everything(source, batch_size=7)
    assert source.size == (4, 4)
    assert {image.shape for image in found.values()} == {(4, 4, 3)}


def test_content_hash_of_a_folder_sees_content_and_names(tmp_path):
    for i, image in enumerate(images(3)):
        Image.fromarray(image).save(tmp_path / f'{i}.png')
    before = FolderImages(tmp_path).content_hash()
    assert FolderImages(tmp_path).content_hash() == before
    Image.fromarray(images(9)[8]).save(tmp_path / '1.png')
    changed = FolderImages(tmp_path).content_hash()
    (tmp_path / '1.png').rename(tmp_path / '1b.png')
    assert len({before, changed, FolderImages(tmp_path).content_hash()}) == 3


@pytest.fixture
def read_files(monkeypatch):
    """Names of the files that were hashed."""
    from usp_mm.evaluation import folder_hash

    names = []
    monkeypatch.setattr(folder_hash, 'sha256', lambda path: names.append(path.name) or sha256(path))
    return names


def test_content_hash_of_an_unchanged_folder_is_kept(tmp_path, read_files, warnings):
    root, cache = tmp_path / 'images', tmp_path / 'cache'
    root.mkdir()
    for i, image in enumerate(images(3)):
        Image.fromarray(image).save(root / f'{i}.png')
    expected = hashlib.sha256()
    for i in range(3):
        expected.update(f'{i}.png'.encode() + b'\0' + hashlib.sha256((root / f'{i}.png').read_bytes()).digest())
    before = FolderImages(root).content_hash(cache)
    assert before == expected.hexdigest() and sorted(read_files) == ['0.png', '1.png', '2.png']
    assert FolderImages(root).content_hash(cache) == before and len(read_files) == 3, 'nothing is read again'
    kept = root / '1.png'
    size = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[:-1] + b'x')
    changed = FolderImages(root).content_hash(cache)
    assert changed != before and len(read_files) == 6 and kept.stat().st_size == size
    kept.rename(root / '1b.png')
    assert FolderImages(root).content_hash(cache) not in (before, changed) and len(read_files) == 9
    (note,) = (cache / 'hashes').iterdir()
    note.write_text('{')
    assert FolderImages(root).content_hash(cache) == FolderImages(root).content_hash() and len(read_files) == 15
    assert len(warnings) == 1 and f"'{note}' is no JSON file" in warnings[0]
    FolderImages(root).content_hash(cache)
    assert len(read_files) == 15


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (images(3).astype(np.float32), r"'arr_0' of .* is float32\[3, 8, 8, 3\]: expected images as uint8"),
        (images(3).transpose(0, 3, 1, 2).copy(), r'is uint8\[3, 3, 8, 8\]: expected'),
        (images(3)[0], r'is uint8\[8, 8, 3\]: expected'),
        (images(0), r'is uint8\[0, 8, 8, 3\]: expected'),
        (np.asfortranarray(images(3)), r'in Fortran order: expected'),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, message):
    np.savez(tmp_path / 'bad.npz', array)
    with pytest.raises(ValueError, match=message):
        open_images(tmp_path / 'bad.npz')


def test_files_that_are_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz' does not exist: give an \.npz file or a folder"):
        open_images(tmp_path / 'none.npz')
    with pytest.raises(FileNotFoundError, match='no image in'):
        open_images(tmp_path)
    np.savez(tmp_path / 'other.npz', mu=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds no images: expected array 'arr_0', found \['mu'\]"):
        open_images(tmp_path / 'other.npz')
    whole = (tmp_path / 'other.npz').read_bytes()
    (tmp_path / 'cut.npz').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r'cut\.npz is not a whole \.npz file'):
        open_images(tmp_path / 'cut.npz')
