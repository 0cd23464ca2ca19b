"""AtomicCheckpointHook: a whole checkpoint is there at every instant, and a resumed run leaves nothing over."""

import shutil
from collections import namedtuple
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.full_disk import fill_disk_at
from helpers.toy_runs import HOOKS, log_of, run, saved
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.engine.checkpointing.latest_checkpoint import newest_checkpoint

EPOCHS = dict(train_cfg=dict(max_epochs=4), checkpoint=dict(max_keep_ckpts=1, backend_args=dict(backend='atomic')))


class Killed(BaseException):
    pass


class Scores(Hook):
    """Scores by epoch, as after a validation; the best checkpoint is that of the highest."""

    priority = 'LOWEST'

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def after_train_epoch(self, runner: Runner) -> None:
        runner._epoch_was, runner.train_loop._epoch = runner.epoch, runner.epoch + 1  # validations come after the count
        for hook in runner.hooks:
            if hasattr(hook, 'save_best'):
                hook.after_val_epoch(runner, dict(score=self.scores[runner.epoch - 1]))
        runner.train_loop._epoch = runner._epoch_was


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py')  # a dumped config


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Raise before the `number`-th change of a file by checkpointing: a save, a rename or a deletion; the changes so far."""
    changes: list[str] = []

    def watched(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            changes.append(name)
            if len(changes) == number:
                raise Killed
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    watched(Runner, 'save_checkpoint')
    watched(Path, 'replace')
    watched(LocalBackend, 'remove')
    return changes


def test_the_files_of_a_run(tmp_path):
    run(tmp_path, train_cfg=dict(max_epochs=4), checkpoint=dict(max_keep_ckpts=2))
    assert names(tmp_path) == ['epoch_3.pth', 'epoch_4.pth', 'last_checkpoint']
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_4.pth'
    assert saved(tmp_path / 'epoch_4.pth')['message_hub']['runtime_info']['outdated_checkpoints'] == ['epoch_2.pth']


def test_killed_before_every_change_of_a_file(tmp_path, monkeypatch):
    """With one checkpoint kept there is always a whole one after the first, and the resumed run ends like the other."""
    run(tmp_path / 'whole', **EPOCHS)
    expected = saved(tmp_path / 'whole' / 'epoch_4.pth')['state_dict']['linear.weight']
    for number in range(1, 99):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            changes = killed_at(patch, number)
            with suppress(Killed):
                run(folder, **EPOCHS)
        if len(changes) < number:
            break
        newest = newest_checkpoint(folder).path
        assert changes.count('replace') <= 1 or newest is not None, changes
        monkeypatch.chdir(tmp_path)
        run(folder, **EPOCHS, resume=newest is not None, load_from=newest and str(newest))
        assert names(folder) == ['epoch_4.pth', 'last_checkpoint']
        assert (folder / 'last_checkpoint').read_text() == 'epoch_4.pth', changes
        assert saved(folder / 'epoch_4.pth')['state_dict']['linear.weight'].equal(expected)
    assert number == 4 * 3 + 3 + 1  # a save, two renames each, and three deletions


@pytest.mark.parametrize('elsewhere', [False, True])
def test_a_resumed_run_names_what_it_goes_on_from(elsewhere, tmp_path):
    """Even if it saves nothing more; a checkpoint of another folder is not named."""
    run(tmp_path / 'run', train_cfg=dict(max_epochs=4), checkpoint=dict(max_keep_ckpts=2))
    folder = tmp_path / ('other' if elsewhere else 'run')
    folder.mkdir(exist_ok=True)
    (folder / 'last_checkpoint').write_text('epoch_3.pth')
    source = tmp_path / 'run' / 'epoch_4.pth'
    run(folder, train_cfg=dict(max_epochs=4), resume=True, load_from=str(source))
    assert (folder / 'last_checkpoint').read_text() == ('epoch_3.pth' if elsewhere else 'epoch_4.pth')


def best(**more: Any) -> dict:
    checkpoint = dict(max_keep_ckpts=1, save_best='score', rule='greater', backend_args=dict(backend='atomic'))
    return dict(train_cfg=dict(max_epochs=4), checkpoint=checkpoint, scores=[1.0, 3.0, 2.0, 4.0], **more)


def scored_run(folder: Path, scores: list[float], **kwargs: Any) -> None:
    kwargs['hooks'] = HOOKS
    runner, _ = run(folder, train=False, **kwargs)
    runner.register_hook(Scores(scores))
    runner.train()


def test_the_best_checkpoint_goes_after_the_better_one_is_whole(tmp_path, monkeypatch):
    scored_run(tmp_path / 'whole', **best())
    assert names(tmp_path / 'whole') == ['best_score_epoch_4.pth', 'epoch_4.pth', 'last_checkpoint']
    for number in range(1, 99, 2):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            changes = killed_at(patch, number)
            with suppress(Killed):
                scored_run(folder, **best())
        if len(changes) < number:
            break
        found = newest_checkpoint(folder).path
        if found and 'best_ckpt' in saved(found)['message_hub']['runtime_info']:
            assert any(name.startswith('best_') for name in names(folder)), (number, changes)
        if number % 3 and (found is None or found.name != 'epoch_4.pth'):  # a validation that was cut off is not made up for
            scored_run(folder, **best(), resume=found is not None, load_from=found and str(found))
            assert names(folder) == names(tmp_path / 'whole')


@pytest.mark.parametrize(
    ('name', 'left', 'newest'),
    [
        ('epoch_3.pth', ['best_score_epoch_2.pth', 'epoch_2.pth', 'last_checkpoint'], 'epoch_2.pth'),
        ('best_score_epoch_4.pth', ['best_score_epoch_2.pth', 'epoch_4.pth', 'last_checkpoint'], 'epoch_4.pth'),
        ('last_checkpoint', ['epoch_1.pth'], 'epoch_1.pth'),
    ],
)
def test_a_full_disk_leaves_what_was_kept(name, left, newest, tmp_path, monkeypatch):
    """With one checkpoint kept: the older one, the older best one, or one that nothing names."""
    with monkeypatch.context() as patch:
        fill_disk_at(patch, name)
        with pytest.raises(OSError, match=rf"cannot write '{tmp_path}/run/{name}', the disk is full: "):
            scored_run(tmp_path / 'run', **best())
    assert names(tmp_path / 'run') == left
    assert newest_checkpoint(tmp_path / 'run').path == tmp_path / 'run' / newest
    if name == 'epoch_3.pth':  # with room again
        scored_run(tmp_path / 'run', **best(), resume=True, load_from=str(tmp_path / 'run' / newest))
        assert names(tmp_path / 'run') == ['best_score_epoch_4.pth', 'epoch_4.pth', 'last_checkpoint']


def test_a_copied_folder_leaves_the_original_alone(tmp_path):
    scored_run(tmp_path / 'run', **{**best(), 'train_cfg': dict(max_epochs=2), 'scores': [1.0, 2.0]})
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    before = names(tmp_path / 'run')
    scored_run(tmp_path / 'copy', **best(), resume=True, load_from=str(tmp_path / 'copy' / 'epoch_2.pth'))
    assert names(tmp_path / 'run') == before == ['best_score_epoch_2.pth', 'epoch_2.pth', 'last_checkpoint']
    assert names(tmp_path / 'copy') == ['best_score_epoch_4.pth', 'epoch_4.pth', 'last_checkpoint']


def test_too_little_room_is_said_before_training(tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage(100, 99, 1))
    run(tmp_path, train_cfg=dict(max_epochs=1), checkpoint=dict(max_keep_ckpts=3))
    assert 'the checkpoints will need about 192 bytes in' in log_of(tmp_path)  # 4 of 4 weights with two moments each
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage(200, 0, 192))
    run(tmp_path / 'enough', train_cfg=dict(max_epochs=1), checkpoint=dict(max_keep_ckpts=3))
    assert 'will need about' not in log_of(tmp_path / 'enough')
