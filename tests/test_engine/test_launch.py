"""Where a run starts: --resume in folders of every kind."""

import shutil

import pytest
from mmengine.config import Config

from usp_mm.engine.launch import choose_start


def start(folder, resume='auto', **cfg):
    """(resume, load_from, the line of the log)"""
    cfg = Config(dict(work_dir=str(folder), **cfg))
    line = choose_start(cfg, resume)
    return cfg.resume, cfg.get('load_from'), line


@pytest.fixture
def work_dir(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'epoch_2.pth').write_text('2')
    (folder / 'epoch_10.pth').write_text('10')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_10.pth'))
    return folder


def test_in_an_empty_folder_it_starts_from_load_from(tmp_path):
    line = f'--resume: no checkpoint in {tmp_path}, the run starts from load_from=weights.pth'
    assert start(tmp_path, load_from='weights.pth') == (False, 'weights.pth', line)
    assert start(tmp_path / 'new') == (
        False,
        None,
        f'--resume: no checkpoint in {tmp_path}/new, the run starts from the beginning',
    )


def test_its_own_checkpoint_goes_before_load_from(work_dir):
    expected = (True, None, f'--resume: the run goes on from {work_dir}/epoch_10.pth')
    assert start(work_dir, load_from='weights.pth') == expected == start(work_dir)


def test_a_named_file_goes_before_all(work_dir):
    named = str(work_dir / 'epoch_2.pth')
    assert start(work_dir, named, load_from='weights.pth')[:2] == (True, named)
    with pytest.raises(FileNotFoundError, match=r"--resume: '.*/nowhere.pth', which is not there"):
        start(work_dir, str(work_dir / 'nowhere.pth'))
    assert start(work_dir, 'https://host/file.pth')[:2] == (True, 'https://host/file.pth')


def test_a_copied_or_moved_folder_goes_on_from_its_own_file(work_dir, tmp_path):
    copy = shutil.copytree(work_dir, tmp_path / 'copy')
    assert start(copy)[:2] == (True, str(copy / 'epoch_10.pth'))
    shutil.rmtree(work_dir)
    assert start(copy)[:2] == (True, str(copy / 'epoch_10.pth'))
    (copy / 'epoch_10.pth').unlink()
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names '.*/run/epoch_10.pth', which is not there"):
        start(copy)


def test_a_folder_whose_last_checkpoint_is_not_named_yet(work_dir):
    """Killed between a first checkpoint and the file that names it."""
    (work_dir / 'last_checkpoint').unlink()
    (work_dir / 'best_score_epoch_12.pth').write_text('')
    assert start(work_dir)[:2] == (True, str(work_dir / 'epoch_10.pth'))
