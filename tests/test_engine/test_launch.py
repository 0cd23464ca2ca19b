"""Where a run starts: --resume in folders of every kind."""

import os
import shutil
from argparse import Namespace

import pytest
from mmengine.config import Config

from usp_mm.cli.train import apply_flags
from usp_mm.engine.launch import choose_start, follow_config_resume


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


@pytest.mark.parametrize('content', ['', '\n'])
def test_an_empty_last_checkpoint(content, work_dir):
    """Killed while the file that names the last checkpoint was written."""
    (work_dir / 'last_checkpoint').write_text(content)
    last = f'{work_dir}/epoch_10.pth'
    line = f'--resume: the run goes on from {last}, the last by number: last_checkpoint is empty'
    assert start(work_dir) == (True, last, line)
    for path in work_dir.glob('*.pth'):
        path.unlink()
    assert start(work_dir) == (False, None, f'--resume: no checkpoint in {work_dir}, the run starts from the beginning')


@pytest.mark.parametrize('template', ['usp-{}.pth', 'run_2_step{}.pth', '{:06d}.pth', 'checkpoint_{}.pth'])
def test_checkpoints_of_another_name_are_numbered_too(template, tmp_path):
    for number in (9, 10, 100):
        (tmp_path / template.format(number)).write_text('')
    for name in ('best_score_epoch_999.pth', 'weights.pth', 'usp-500.pth.tmp'):
        (tmp_path / name).write_text('')
    assert start(tmp_path)[:2] == (True, str(tmp_path / template.format(100)))


def from_config(folder, **cfg):
    cfg = Config(dict(work_dir=str(folder), **cfg))
    line = follow_config_resume(cfg)
    return cfg.get('resume'), cfg.get('load_from'), line


def test_resume_in_a_config_is_the_flag(work_dir, tmp_path):
    copy = shutil.copytree(work_dir, tmp_path / 'copy')
    for folder in (work_dir, copy, tmp_path / 'new'):
        assert from_config(folder, resume=True, load_from=None) == start(folder)
    assert from_config(copy, resume=True)[:2] == (True, str(copy / 'epoch_10.pth'))
    assert from_config(work_dir, resume=False) == (False, None, None)
    assert from_config(work_dir, load_from='weights.pth') == (None, 'weights.pth', None)


def test_resume_in_a_config_with_a_file_passes_newer_checkpoints_over_aloud(work_dir, tmp_path):
    other, own = str(tmp_path / 'other.pth'), f'{work_dir}/epoch_10.pth'
    (tmp_path / 'other.pth').write_text('')
    os.utime(own, (2000, 2000))
    for written, told in ((1000, True), (3000, False)):
        os.utime(other, (written, written))
        line = f'resume=True: the run goes on from load_from={other}, not from the newer {own}: leave load_from out to go on '
        line += 'from it'
        assert from_config(work_dir, resume=True, load_from=other) == (True, other, line if told else None)
    assert from_config(work_dir, resume=True, load_from=own) == (True, own, None)
    assert from_config(tmp_path / 'new', resume=True, load_from=other) == (True, other, None)
    assert f'not from the newer {own}' in from_config(work_dir, resume=True, load_from='https://host/file.pth')[2]


@pytest.mark.parametrize('flag', [None, 'auto'])
def test_train_reads_both(flag, work_dir, tmp_path):
    copy = shutil.copytree(work_dir, tmp_path / 'copy')
    cfg = Config(dict(work_dir=str(copy), resume=True, load_from=None, optim_wrapper=dict(optimizer=dict(lr=0.1))))
    args = Namespace(resume=flag, amp=False, auto_scale_lr=False, no_validate=False, fast=False)
    assert apply_flags(cfg, args)[0] == f'--resume: the run goes on from {copy}/epoch_10.pth'
    assert cfg.load_from == str(copy / 'epoch_10.pth')
