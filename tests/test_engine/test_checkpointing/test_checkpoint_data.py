"""What a run saves is what its reader reads."""

from collections import OrderedDict, deque, namedtuple
from datetime import date
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.toy_runs import log_of, run
from mmengine.config import ConfigDict
from mmengine.registry import PARAM_SCHEDULERS

from usp_mm.engine.checkpointing.checkpoint_data import plain, same
from usp_mm.fileio.weights import read_checkpoint

Point = namedtuple('Point', 'x y')


class Colour(Enum):
    RED = 'red'


METAINFO = dict(
    classes=('a', 'b'),
    nested=ConfigDict(a=dict(b=[1, dict(c=2.5)])),
    palette=np.array([[1, 2, 3]], np.uint8),
    scores=np.array([0.5], np.float16),
    names=np.array(['x', 'y']),
    kept=np.arange(3, dtype=np.int64),
    root=Path('/data/images'),
    ids={3, 1},
    frozen=frozenset({2}),
    number=np.int16(4),
    flag=np.bool_(True),
    point=Point(1, 2),
    colour=Colour.RED,
    day=date(2025, 1, 2),
    steps=range(3),
    last=deque([1, 2]),
    kind=Colour,
    objects=np.array([None, 'a'], object),
)


def test_every_scheduler_of_mmengine_is_saved_and_read_back(all_schedulers, tmp_path):
    runner, _ = run(tmp_path, train_cfg=dict(max_epochs=1), train=False)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert len(all_schedulers) >= 29
    for cfg in all_schedulers:
        optimizer = dict(optimizer=runner.optim_wrapper, epoch_length=1)
        scheduler = PARAM_SCHEDULERS.build(dict(cfg), default_args=optimizer)
        runner.param_schedulers = [scheduler]
        runner.save_checkpoint(str(tmp_path), 'file.pth')
        state = read_checkpoint(tmp_path / 'file.pth')['param_schedulers'][0]
        expected = {key: value for key, value in scheduler.state_dict().items() if not callable(value)}
        assert same(state, expected), cfg
        other = PARAM_SCHEDULERS.build(dict(cfg), default_args=optimizer)
        other.load_state_dict(state)
        assert vars(other).keys() == vars(scheduler).keys()


@pytest.mark.parametrize('name', ['OneCycleLR', 'OneCycleParamScheduler'])
def test_a_run_with_one_cycle_resumes_from_its_own_checkpoint(name, tmp_path):
    schedule = dict(type=name, eta_max=0.2, total_steps=40, by_epoch=False)
    schedule |= dict(param_name='lr') if name == 'OneCycleParamScheduler' else {}
    cfg = dict(train_cfg=dict(max_epochs=4), schedulers=schedule)
    _, whole = run(tmp_path, **cfg)
    assert 'left out of checkpoints, which hold data alone: param_schedulers.0.anneal_func (a function)' in log_of(tmp_path)
    _, resumed = run(tmp_path / 'on', **cfg, resume=True, load_from=str(tmp_path / 'epoch_2.pth'))
    assert resumed.rates() == {iteration: rate for iteration, rate in whole.rates().items() if iteration >= 20}
    assert 'resume: the settings are those of the checkpoint' in log_of(tmp_path / 'on')


def test_another_annealing_function_is_noticed(tmp_path):
    cfg = dict(type='OneCycleLR', eta_max=0.2, total_steps=40, by_epoch=False)
    run(tmp_path, train_cfg=dict(max_epochs=4), schedulers=cfg)
    run(tmp_path / 'on', train_cfg=dict(max_epochs=4), schedulers=[{**cfg, 'anneal_strategy': 'linear'}], resume=True,
        load_from=str(tmp_path / 'epoch_2.pth'))  # fmt: skip
    assert 'resume: param_scheduler.0 (OneCycleLR): anneal_strategy None -> linear\n' in log_of(tmp_path / 'on')


def test_metainfo_of_any_data_is_read_back_and_resumed_without_a_warning(tmp_path):
    cfg = dict(train_cfg=dict(max_epochs=2), metainfo=METAINFO)
    run(tmp_path, **cfg)
    meta = read_checkpoint(tmp_path / 'epoch_1.pth')['meta']['dataset_meta']
    assert np.array_equal(meta.pop('kept'), [0, 1, 2])
    assert meta == dict(
        classes=('a', 'b'), nested=dict(a=dict(b=[1, dict(c=2.5)])), palette=[[1, 2, 3]], scores=[0.5], names=['x', 'y'],
        root='/data/images', ids={1, 3}, frozen={2}, number=4, flag=True, point=(1, 2), colour='red', day='2025-01-02',
        steps=[0, 1, 2], last=[1, 2], kind=f'{__name__}.Colour', objects=[None, 'a'],
    )  # fmt: skip
    run(tmp_path / 'on', **cfg, resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    assert 'dataset metainfo from the resumed checkpoint is different' not in log_of(tmp_path / 'on')
    run(tmp_path / 'other', **{**cfg, 'metainfo': dict(METAINFO, classes=('b', 'a'))}, resume=True,
        load_from=str(tmp_path / 'epoch_1.pth'))  # fmt: skip
    assert 'dataset metainfo from the resumed checkpoint is different' in log_of(tmp_path / 'other')


def test_what_is_no_data_is_left_out_and_named_once(tmp_path):
    run(tmp_path, train_cfg=dict(max_epochs=2), metainfo=dict(classes=('a',), loader=print, more=[1, object()]))
    assert read_checkpoint(tmp_path / 'epoch_2.pth')['meta']['dataset_meta'] == dict(classes=('a',), more=[1])
    line = (
        'left out of checkpoints, which hold data alone: meta.dataset_meta.loader (a builtin_function_or_method), '
        'meta.dataset_meta.more.1 (a object)'
    )
    assert log_of(tmp_path).count(line) == 1 and log_of(tmp_path).count('left out of checkpoints') == 1


def test_plain_keeps_what_the_reader_takes():
    kept = OrderedDict(a=torch.zeros(2), b=torch.Size([1]), c=torch.float32, d=b'x', e=1j)
    assert plain(kept) == kept and type(plain(kept)) is OrderedDict
    assert plain(print) is None and same(plain(dict(a=np.ones(2))), dict(a=np.ones(2)))
    assert not same(dict(a=np.ones(2)), dict(a=np.zeros(2))) and not same([1], [1, 2])
