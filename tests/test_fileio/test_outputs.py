"""Whether results can be written, before the work."""

import os
from argparse import Namespace

import pytest

from usp_mm.fileio.outputs import check_counts, check_file, check_folder


def test_what_can_be_written(tmp_path):
    check_file(None, '--out')
    check_file(tmp_path / 'new' / 'folder' / 'a.PNG', '--out', ('.png',))
    check_folder(tmp_path / 'new' / 'folder', '--out')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('name', 'arguments', 'error', 'message'),
    [
        ('r.jpgx', dict(suffixes=('.jpg', '.png')), ValueError, r"--out '.*r\.jpgx' must end in \.jpg or \.png"),
        ('', {}, IsADirectoryError, 'it is a folder, name a file in it'),
        ('none/r.png', dict(make_folder=False), FileNotFoundError, "folder '.*none' does not exist, create it first"),
        ('file/r.png', {}, NotADirectoryError, "'.*file' is a file, not a folder"),
        ('file/a/b/r.png', {}, NotADirectoryError, "'.*file' is a file, not a folder"),
    ],
)
def test_what_cannot(name, arguments, error, message, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(error, match=message):
        check_file(tmp_path / name, '--out', **arguments)


def test_folders_that_are_not_ours(tmp_path, monkeypatch):
    (tmp_path / 'old.json').touch()
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"--json: cannot write '.*old\.json': the file is not yours to write"):
        check_file(tmp_path / 'old.json', '--json')
    with pytest.raises(PermissionError, match=rf"--out: cannot write '.*new': '{tmp_path}' is not yours to write in"):
        check_folder(tmp_path / 'new', '--out')


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError, match='is a file, not a folder'):
        check_folder(tmp_path / 'file', '--out')


@pytest.mark.parametrize('value', [0, -1])
def test_counts(value):
    check_counts(Namespace(num=1, steps=None), 'num', 'steps', 'absent')
    with pytest.raises(ValueError, match=f'--batch-size {value} must be 1 or more'):
        check_counts(Namespace(batch_size=value), 'batch_size')
