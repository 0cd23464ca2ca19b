"""Ctrl-C in a training: the line that it ends with says what was saved last."""

import signal

import pytest
from helpers.toy_runs import run
from mmengine.hooks import Hook

from usp_mm.engine.checkpointing.interruption import telling_what_is_saved
from usp_mm.runtime.processes import Stopped, how_it_ended


class Raises(Hook):
    """Raise an exception in an iteration, counted from 0."""

    def __init__(self, iteration, error):
        self.iteration, self.error = iteration, error

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise self.error


def line_of(folder, iteration, error=None, **kwargs):
    """How a run of 30 iterations ends, whose checkpoints come every 10."""
    kwargs = dict(train_cfg=dict(max_iters=30), checkpoint=dict(interval=10), **kwargs)
    runner, _ = run(folder, train=False, **kwargs)
    runner.register_hook(Raises(iteration, error or KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt) as end, telling_what_is_saved(runner):
        runner.train()
    return how_it_ended(end.value)


@pytest.mark.parametrize(
    ('iteration', 'told'),
    [
        (0, 'before its first iteration: no checkpoint was saved yet'),
        (7, 'after iteration 7: no checkpoint was saved yet'),
        (27, 'after iteration 27: the last checkpoint is {}/iter_20.pth; the same command with --resume goes on from there'),
    ],
)
def test_the_last_checkpoint_is_named(iteration, told, tmp_path):
    assert line_of(tmp_path, iteration) == (f'interrupted {told.format(tmp_path)}', 130)


def test_a_resumed_run_names_what_it_went_on_from(tmp_path):
    line_of(tmp_path, 17)
    last = tmp_path / 'iter_10.pth'
    line, _ = line_of(tmp_path, 13, resume=True, load_from=str(last))
    assert (
        line
        == f'interrupted after iteration 13: the last checkpoint is {last}; the same command with --resume goes on from there'
    )


def test_another_signal_keeps_its_own_words(tmp_path):
    assert line_of(tmp_path, 3, Stopped(signal.SIGHUP)) == ('stopped by SIGHUP', 129)
