"""Where a run starts: --resume in folders of every kind."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from usp_mm.cli.train import apply_flags
from usp_mm.engine.starting.start_point import choose_start, delete_checkpoints, follow_config_resume, own_folder, start_of_run
from usp_mm.fileio.atomic import _machine


def start(folder, resume='auto', **cfg):
    """(resume, load_from, the lines of the log)"""
    cfg = Config(dict(work_dir=str(folder), **cfg))
    line = choose_start(cfg, resume)
    return cfg.resume, cfg.get('load_from'), line


def checkpoint(path, iterations):
    torch.save(dict(meta=dict(iter=iterations), state_dict=dict(weight=torch.full((100,), float(iterations)))), path)
    return path


@pytest.fixture
def work_dir(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    for epoch in (2, 10):
        checkpoint(folder / f'epoch_{epoch}.pth', 5 * epoch)
    (folder / 'last_checkpoint').write_text('epoch_10.pth')
    return folder


def test_in_an_empty_folder_it_starts_from_load_from(tmp_path):
    line = f'--resume: no checkpoint in {tmp_path}, the run starts from load_from=weights.pth'
    assert start(tmp_path, load_from='weights.pth') == (False, 'weights.pth', [line])
    line = f'--resume: no checkpoint in {tmp_path}/new, the run starts from the beginning'
    assert start(tmp_path / 'new') == (False, None, [line])


def test_its_own_checkpoint_goes_before_load_from(work_dir):
    last = f'{work_dir}/epoch_10.pth'
    expected = (True, last, [f'--resume: the run goes on from {last}'])
    assert start(work_dir, load_from='weights.pth') == expected == start(work_dir)


def test_a_named_file_goes_before_all(work_dir):
    named = str(work_dir / 'epoch_2.pth')
    assert start(work_dir, named, load_from='weights.pth')[:2] == (True, named)
    with pytest.raises(FileNotFoundError, match=r"--resume: '.*/nowhere.pth', which is not there"):
        start(work_dir, str(work_dir / 'nowhere.pth'))
    assert start(work_dir, 'https://host/file.pth')[:2] == (True, 'https://host/file.pth')


@pytest.mark.parametrize(
    'name', ['{folder}/epoch_10.pth', 'epoch_10.pth', '', '\n', None, '{folder}/epoch_2.pth', 'epoch_9.pth']
)
def test_whatever_is_named_last_the_newest_of_the_folder_is_taken(name, work_dir, tmp_path):
    """Copied, moved, killed before or while the name was written, or with a name from an older version."""
    if name is None:
        (work_dir / 'last_checkpoint').unlink()
    else:
        (work_dir / 'last_checkpoint').write_text(name.format(folder=work_dir))
    checkpoint(work_dir / 'best_score_epoch_12.pth', 60)
    copy = shutil.copytree(work_dir, tmp_path / 'copy')
    for folder in (work_dir, copy):
        assert start(folder)[:2] == (True, str(folder / 'epoch_10.pth'))
    shutil.rmtree(work_dir)
    assert start(copy)[:2] == (True, str(copy / 'epoch_10.pth'))


def test_a_named_checkpoint_of_another_folder(work_dir, tmp_path):
    for name in ('../run/epoch_10.pth', str(work_dir / 'epoch_10.pth')):
        elsewhere = tmp_path / 'elsewhere'
        elsewhere.mkdir(exist_ok=True)
        (elsewhere / 'last_checkpoint').write_text(name)
        path = start(elsewhere)[1]
        assert os.path.samefile(path, work_dir / 'epoch_10.pth')
    shutil.rmtree(work_dir)
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names '.*/run/epoch_10.pth', which is not there"):
        start(elsewhere)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == 'missing':
        path.unlink()
        return
    if how == 'flipped':
        content[content.index(torch.full((2,), 50.0).numpy().tobytes()) + 40] ^= 1
    path.write_bytes({'truncated': content[:-100], 'empty': b'', 'zeroed': bytes(len(content))}.get(how, content))


@pytest.mark.parametrize('how', ['truncated', 'empty', 'zeroed', 'flipped', 'missing'])
def test_a_damaged_checkpoint_is_passed_over(how, work_dir):
    damage(work_dir / 'epoch_10.pth', how)
    resume, path, lines = start(work_dir)
    assert (resume, path) == (True, f'{work_dir}/epoch_2.pth')
    assert lines[-1] == f'--resume: the run goes on from {work_dir}/epoch_2.pth'
    assert [line[: line.index('epoch_10.pth')] for line in lines[:-1]] == (
        [] if how == 'missing' else [f'--resume: passed over a checkpoint that is not whole: {work_dir}/']
    )
    if how != 'missing':
        damage(work_dir / 'epoch_2.pth', 'empty')
        with pytest.raises(ValueError, match=r'run has no whole checkpoint .*start anew with --overwrite'):
            start(work_dir)


def test_the_one_with_the_most_iterations_is_the_newest(work_dir):
    """A preempted run of epochs leaves a checkpoint that counts iterations."""
    checkpoint(work_dir / 'iter_49.pth', 49)
    assert start(work_dir)[1] == f'{work_dir}/epoch_10.pth'
    checkpoint(work_dir / 'iter_52.pth', 52)
    assert start(work_dir)[1] == f'{work_dir}/iter_52.pth'


@pytest.mark.parametrize('template', ['usp-{}.pth', 'run_2_step{}.pth', '{:06d}.pth', 'checkpoint_{}.pth'])
def test_checkpoints_of_another_name_are_numbered_too(template, tmp_path):
    for number in (9, 10, 100):
        checkpoint(tmp_path / template.format(number), number)
    for name in ('best_score_epoch_999.pth', 'weights.pth', 'usp-500.pth.tmp'):
        (tmp_path / name).write_text('')
    assert start(tmp_path)[:2] == (True, str(tmp_path / template.format(100)))


def test_a_used_folder_is_not_started_in_again(work_dir, monkeypatch):
    def started(flag=None, overwrite=False, **cfg):
        return start_of_run(Config(dict(work_dir=str(work_dir), **cfg)), flag, overwrite)

    with pytest.raises(
        ValueError, match=r"run' holds checkpoints of an earlier run \(epoch_10.pth\): give --resume .*--overwrite"
    ):
        started(load_from='weights.pth')
    with pytest.raises(ValueError, match='--resume and --overwrite contradict each other'):
        started('auto', overwrite=True)
    assert started(overwrite=True) == []
    goes_on = f'--resume: the run goes on from {work_dir}/epoch_10.pth'
    assert started('auto') == started(resume=True) == [goes_on]
    for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'):
        monkeypatch.setenv(name, '0')
        with pytest.raises(ValueError, match='holds checkpoints'):
            started()
        monkeypatch.setenv(name, '2')
        assert started() == [f'{name}=2: the job was started again, as with --resume', goes_on]
        monkeypatch.delenv(name)
    for path in work_dir.glob('epoch_*'):
        path.unlink()
    assert started() == []


def test_overwriting_deletes_the_checkpoints_and_nothing_else(work_dir):
    for name in ('best_score_epoch_12.pth', 'weights.pth', 'run_info.json', 'last_validation'):
        (work_dir / name).write_text('')
    lines = []
    delete_checkpoints(SimpleNamespace(work_dir=str(work_dir), logger=SimpleNamespace(warning=lines.append)))
    assert sorted(path.name for path in work_dir.iterdir()) == ['run_info.json', 'weights.pth']
    assert lines == [f"--overwrite: deleted 3 checkpoints of an earlier run from '{work_dir}'"]


def test_one_training_in_a_folder(work_dir, monkeypatch):
    """The first process of a run holds the lock for all of them."""
    cfg = Config(dict(work_dir=str(work_dir), launcher='none'))
    held = 'import sys; from mmengine.config import Config; from usp_mm.engine.starting.start_point import own_folder\n'
    held += f"with own_folder(Config(dict(work_dir={str(work_dir)!r}, launcher='none'))):\n"
    held += "    print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, '-c', held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == 'held\n'
        with (
            pytest.raises(ValueError, match=rf"another training is running in '.*run': .* \(process {other.pid} on "),
            own_folder(cfg),
        ):
            pass
        monkeypatch.setenv('RANK', '1')
        with own_folder(Config(dict(work_dir=str(work_dir), launcher='pytorch'))):
            pass
        other.kill()
    with own_folder(cfg):
        assert json.loads((work_dir / '.training.lock').read_text())['pid'] == os.getpid()


def from_config(folder, **cfg):
    cfg = Config(dict(work_dir=str(folder), **cfg))
    line = follow_config_resume(cfg)
    return cfg.get('resume'), cfg.get('load_from'), line


def test_what_killed_trainings_left_is_removed(work_dir):
    """In the folder and in the folders of logs; elsewhere, and of living processes, it stays."""
    dead = subprocess.run(
        [sys.executable, '-c', 'import os; print(os.getpid())'], capture_output=True, text=True
    ).stdout.strip()
    ended, living = (f'.x.json.{_machine()}-{pid}-00000000.tmp' for pid in (dead, os.getpid()))
    folders = [work_dir, *(work_dir / name for name in ('20260101_000000', '20260101_000000/vis_data/vis_image', 'elsewhere'))]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (ended, living, '.x.json.tmp'):
            (folder / name).touch()
    with own_folder(Config(dict(work_dir=str(work_dir), launcher='none'))):
        found = [{name for name in (ended, living, '.x.json.tmp') if (folder / name).exists()} for folder in folders]
    assert found == [{living, '.x.json.tmp'}] * 3 + [{ended, living, '.x.json.tmp'}]


def test_resume_in_a_config_is_the_flag(work_dir, tmp_path):
    copy = shutil.copytree(work_dir, tmp_path / 'copy')
    for folder in (work_dir, copy, tmp_path / 'new'):
        assert from_config(folder, resume=True, load_from=None) == start(folder)
    assert from_config(copy, resume=True)[:2] == (True, str(copy / 'epoch_10.pth'))
    assert from_config(work_dir, resume=False) == (False, None, [])
    assert from_config(work_dir, load_from='weights.pth') == (None, 'weights.pth', [])


def test_resume_in_a_config_with_a_file_passes_newer_checkpoints_over_aloud(work_dir, tmp_path):
    other, own = str(tmp_path / 'other.pth'), f'{work_dir}/epoch_10.pth'
    (tmp_path / 'other.pth').write_text('')
    os.utime(own, (2000, 2000))
    for written, told in ((1000, True), (3000, False)):
        os.utime(other, (written, written))
        line = f'resume=True: the run goes on from load_from={other}, not from the newer {own}: leave load_from out to go on '
        line += 'from it'
        assert from_config(work_dir, resume=True, load_from=other) == (True, other, [line] if told else [])
    assert from_config(work_dir, resume=True, load_from=own) == (True, own, [])
    assert from_config(tmp_path / 'new', resume=True, load_from=other) == (True, other, [])
    assert f'not from the newer {own}' in from_config(work_dir, resume=True, load_from='https://host/file.pth')[2][0]


@pytest.mark.parametrize('flag', [None, 'auto'])
def test_train_reads_both(flag, work_dir, tmp_path):
    copy = shutil.copytree(work_dir, tmp_path / 'copy')
    cfg = Config(dict(work_dir=str(copy), resume=True, load_from=None, optim_wrapper=dict(optimizer=dict(lr=0.1))))
    args = Namespace(resume=flag, amp=False, auto_scale_lr=False, no_validate=False, fast=False, overwrite=False, tracker=[])
    assert apply_flags(cfg, args)[0] == f'--resume: the run goes on from {copy}/epoch_10.pth'
    assert cfg.load_from == str(copy / 'epoch_10.pth')
