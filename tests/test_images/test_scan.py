"""One walk through a folder for every reader of image folders."""

import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend
from PIL import Image

from usp_mm.images import find_images, images_below, list_images
from usp_mm.vaes.training import _find_images


def put(root: Path, *names: str) -> Path:
    """Small images, or empty files where the name has no image's ending."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in ('.png', '.webp', '.tiff', '.jpg'):
            Image.fromarray(np.full((4, 4, 3), 100, np.uint8)).save(path)
        else:
            path.touch()
    return root


def test_what_counts_and_what_is_left_out(tmp_path: Path, logged_lines) -> None:
    root = put(
        tmp_path / 'images',
        'a.png', 'A.PNG', 'b.webp', 'c.tiff', 'deep/er/d.JPG', 'x.png/inside.png', 'no_ending', 'notes.txt', 'Thumbs.db',
        '._a.png', '.ipynb_checkpoints/a.png', 'deep/.hidden/b.png', '__MACOSX/c.png', 'deep/@eaDir/d.jpg',
    )  # fmt: skip
    put(tmp_path / 'elsewhere', 'linked.png')
    (root / 'link.png').symlink_to(root / 'a.png')
    (root / 'linked').symlink_to(tmp_path / 'elsewhere')
    (root / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    (root / 'itself.png').symlink_to(root / 'itself.png')
    os.mkfifo(root / 'pipe.png')
    listing = list_images(root)
    assert listing.images == [
        'A.PNG', 'a.png', 'b.webp', 'c.tiff', 'deep/er/d.JPG', 'link.png', 'linked/linked.png', 'x.png/inside.png',
    ]  # fmt: skip
    assert listing.folders == ['deep', 'linked', 'x.png']
    assert sorted(listing.hidden) == ['._a.png', '.ipynb_checkpoints', '__MACOSX', 'deep/.hidden', 'deep/@eaDir']
    assert sorted(listing.dangling) == ['gone.png', 'itself.png'] and listing.special == ['pipe.png']
    images_below(root)
    ((level, line),) = logged_lines
    assert level == 'warning'
    assert line == (
        f"images of '{root}': 19 files found, 8 taken (.png 5, .jpg 1, .tiff 1, .webp 1); left out: "
        "3 with another ending (no ending 1, .db 1, .txt 1); 5 hidden ('._a.png', '.ipynb_checkpoints', '__MACOSX', …); "
        "2 linked to nothing ('gone.png', 'itself.png'); 1 no regular file ('pipe.png')"
    )


def test_a_folder_of_images_alone_is_one_line(tmp_path: Path, logged_lines, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 'a.png', 'b.png')
    images_below(tmp_path)
    assert logged_lines == [('info', f"images of '{tmp_path}': 2 files found, 2 taken (.png 2)")]
    monkeypatch.setenv('RANK', '1')
    assert len(images_below(tmp_path)) == 2 and len(logged_lines) == 1, 'only process 0 says it'


@pytest.mark.parametrize(
    'read', [list_images, images_below, lambda root: find_images([root]), lambda root: _find_images([root])]
)
def test_a_loop_of_links_is_named(tmp_path: Path, read) -> None:
    root = put(tmp_path / 'images', 'a/0.png', 'b/1.png')
    (root / 'a' / 'up').symlink_to(root)
    with pytest.raises(ValueError, match=rf"'{root}/a/up' is a link to '{root}', a folder that it lies in, .*delete the link"):
        read(root)
    (root / 'a' / 'up').unlink()
    (root / 'a' / 'over').symlink_to(root / 'b')
    assert list_images(root).images == ['a/0.png', 'a/over/1.png', 'b/1.png'], 'the same folder twice is no loop'
    (root / 'b' / 'back').symlink_to(root / 'a')
    with pytest.raises(ValueError, match=r"'.*/(over|back)/(back|over)' is a link to '.*', a folder that it lies in"):
        read(root)


@pytest.mark.parametrize(
    'read', [list_images, images_below, lambda root: find_images([root]), lambda root: _find_images([root])]
)
@pytest.mark.parametrize('name', [b'caf\xe9.png', b'caf\xe9/a.png'])
def test_names_that_are_not_utf8_are_named(tmp_path: Path, read, name: bytes) -> None:
    put(tmp_path, 'a.png', 'b.png')
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, 'wb').close()
    with pytest.raises(ValueError, match=r"names in '.*' are not UTF-8, such as 'caf\\xe9.*': rename them") as error:
        read(tmp_path)
    assert str(error.value).encode()
    os.rename(path, path + b'.txt')
    if b'/' not in name:
        assert list_images(tmp_path).images == ['a.png', 'b.png'], 'files that are no images may have any name'


def test_a_given_file_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.png')
    Image.new('RGB', (4, 4)).save(path)
    with pytest.raises(ValueError, match=r"the name '.*caf\\xe9\.png' is not UTF-8"):
        find_images([path])


def test_own_endings(tmp_path: Path) -> None:
    put(tmp_path, 'a_rgb.png', 'a_mask.png', 'b.JPG', 'c.webp')
    assert list_images(tmp_path, ['.jpg', '_rgb.PNG']).images == ['a_rgb.png', 'b.JPG']


def test_an_unreadable_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 'a/0.png')
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('/a'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/a'"):
        list_images(tmp_path)


def test_order_of_files_and_folders_is_as_before(tmp_path: Path) -> None:
    """Folder by folder, as sorted paths are: the images that a seed picks stay the same."""
    root = put(tmp_path, 'a/x.png', 'a-b/x.png', 'a b/x.png', 'a.png', 'a/x/y.png', 'B/z.png')
    assert images_below(root) == sorted(path for path in root.rglob('*') if path.is_file())
    single = root / 'a' / 'x.png'
    assert find_images([single, root / 'B']) == [single, root / 'B' / 'z.png']
    assert find_images([root], 2) == [images_below(root)[0], images_below(root)[3]]


class ListedElsewhere(BaseStorageBackend):
    """A storage that is no local folder."""

    local = LocalBackend()

    def get(self, filepath):
        return self.local.get(filepath.removeprefix('listed://'))

    def get_text(self, filepath, encoding='utf-8'):
        return self.local.get_text(filepath.removeprefix('listed://'), encoding)

    def list_dir_or_file(self, dir_path, **kwargs):
        return self.local.list_dir_or_file(dir_path.removeprefix('listed://'), **kwargs)


def test_other_storages(tmp_path: Path) -> None:
    register_backend('listed', ListedElsewhere, prefixes='listed', force=True)
    root = put(tmp_path, 'a/0.png', 'a/1.webp', 'b/2.tiff', 'b/.x/3.png', '.cache/4.png', '__MACOSX/5.png', 'notes.txt')
    here, there = list_images(root), list_images(f'listed://{root}')
    assert there.images == here.images == ['a/0.png', 'a/1.webp', 'b/2.tiff'] and there.folders == here.folders == ['a', 'b']
    assert sorted(there.hidden)[:2] == ['.cache', '__MACOSX'] and there.others == here.others
