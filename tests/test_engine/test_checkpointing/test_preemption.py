"""A training that is asked to end: which iteration it ends after, what it saves, and that it goes on from there."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_runs import HOOKS, log_of, run, saved
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.engine.checkpointing.preemption import noting_signals

ALL = (*HOOKS, 'PreemptionHook')


class Asks(Hook):
    """Send this process a signal in an iteration, counted from 0."""

    def __init__(self, iteration: int, number: signal.Signals) -> None:
        self.iteration, self.number = iteration, number

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def asked_run(folder: Path, iteration: int, number: signal.Signals = signal.SIGTERM, **kwargs: Any) -> tuple[list, Any]:
    """The samples of a run that is asked to end in an iteration, and its exit code (None: it went to its end)."""
    kwargs.setdefault('checkpoint', dict(max_keep_ckpts=2, backend_args=dict(backend='atomic')))
    runner, recorder = run(folder, train=False, hooks=ALL, **kwargs)
    runner.register_hook(Asks(iteration, number))
    try:
        with noting_signals():
            runner.train()
    except SystemExit as end:
        return recorder.samples, end.code
    return recorder.samples, None


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.mark.parametrize(
    ('schedule', 'iteration', 'name'),
    [
        (dict(train_cfg=dict(max_epochs=3)), 13, 'iter_14.pth'),
        (dict(train_cfg=dict(max_epochs=3)), 19, 'epoch_2.pth'),  # the last of its epoch
        (dict(train_cfg=dict(max_iters=30), checkpoint=dict(interval=10, max_keep_ckpts=1)), 13, 'iter_14.pth'),
        (dict(train_cfg=dict(max_iters=30), checkpoint=dict(interval=10, max_keep_ckpts=1)), 19, 'iter_20.pth'),
        # a step of the optimizer takes four iterations
        (dict(train_cfg=dict(max_epochs=3), wrapper=dict(accumulative_counts=4)), 12, 'iter_14.pth'),
    ],
)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_it_ends_after_the_step_and_goes_on_from_there(schedule, iteration, name, number, tmp_path):
    whole, _ = asked_run(tmp_path / 'whole', 99, **schedule)
    done, code = asked_run(tmp_path / 'run', iteration, number, **schedule)
    assert code == 75 and name in files(tmp_path / 'run')
    assert (tmp_path / 'run' / 'last_checkpoint').read_text() == name
    line = f'{number.name}: saved {tmp_path}/run/{name}; the same command with --resume goes on from there'
    assert line in log_of(tmp_path / 'run')
    rest, code = asked_run(tmp_path / 'run', 99, **schedule, resume=True, load_from=str(tmp_path / 'run' / name))
    assert done + rest == whole and code is None
    assert files(tmp_path / 'run') == files(tmp_path / 'whole')
    last = (tmp_path / 'whole' / 'last_checkpoint').read_text()
    weights = [saved(tmp_path / folder / last)['state_dict']['linear.weight'] for folder in ('run', 'whole')]
    assert weights[0].equal(weights[1])


def test_the_last_iteration_ends_as_ever(tmp_path):
    assert asked_run(tmp_path, 29, train_cfg=dict(max_epochs=3))[1] is None
    assert files(tmp_path) == ['epoch_2.pth', 'epoch_3.pth']


def test_asked_again_and_again(tmp_path):
    schedule = dict(train_cfg=dict(max_epochs=3))
    whole, _ = asked_run(tmp_path / 'whole', 99, **schedule)
    folder, samples, source = tmp_path / 'run', [], {}
    for iteration in (2, 5, 6, 17, 99):
        done, code = asked_run(folder, iteration, **schedule, **source)
        samples += done
        assert code == (75 if iteration < 99 else None)
        names = files(folder)
        assert len([name for name in names if name.startswith('iter_')]) == (iteration < 99)
        source = dict(resume=True, load_from=str(folder / (folder / 'last_checkpoint').read_text()))
    assert samples == whole


def test_signals_are_noted_in_the_block_only():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with noting_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before[1])
    assert signal.getsignal(signal.SIGTERM) is before[0]


def test_signals_that_no_hook_answers_end_the_process_as_ever():
    before = signal.getsignal(signal.SIGTERM)
    with noting_signals([Asks(1, signal.SIGTERM)]):
        assert signal.getsignal(signal.SIGTERM) is before


def test_without_its_checkpoint_hook_it_says_so(tmp_path):
    _, code = asked_run(tmp_path, 3, train_cfg=dict(max_epochs=1), checkpoint=dict(type='CheckpointHook'))
    assert code == 'SIGTERM: the run ends without a checkpoint, since its config has no AtomicCheckpointHook'
