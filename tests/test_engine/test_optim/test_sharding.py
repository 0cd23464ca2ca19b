"""An optimizer whose state the processes share: the same run, and the same files, as without sharing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.small_world import ROOT
from helpers.toy_runs import log_of, losses, run, saved

from usp_mm.engine.checkpointing.checkpoint_data import same
from usp_mm.engine.checks.config.rules import TOP
from usp_mm.engine.checks.config.unknown_keys import check_part
from usp_mm.engine.optim.lars import MAELARS
from usp_mm.engine.optim.sharding import sharded_class

SHARED = dict(type='ZeroRedundancyOptimizer', optimizer_type='AdamW', lr=0.1)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Folders of trainings on one to three processes, see sharded_share.py."""
    folder = tmp_path_factory.mktemp('sharded')
    env = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}', 'OMP_NUM_THREADS': '1'}
    script = Path(__file__).with_name('sharded_share.py')
    done = subprocess.run([sys.executable, script, folder], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / 'codes.json').read_text())
    assert all(code == (75 if name == 'asked' else 0) for name, codes in found['codes'].items() for code in codes), done.stderr
    return folder


def optimizer_of(path):
    return saved(path)['optimizer']


@pytest.mark.slow
@pytest.mark.parametrize('name', ['shared', 'views'])
def test_losses_and_files_are_those_without_sharing(runs, name):
    whole, ours = losses(runs / 'plain'), losses(runs / name)
    assert len(whole) == 24 and ours == pytest.approx(whole, rel=1e-5)
    for epoch in (1, 4):
        theirs, found = (saved(runs / folder / f'epoch_{epoch}.pth') for folder in ('plain', name))
        assert same(found['optimizer'], theirs['optimizer']) and len(found['optimizer']['state']) == 4
        assert same(found['state_dict'], theirs['state_dict'])
        assert found.keys() == theirs.keys() and found['meta']['training_settings'] == theirs['meta']['training_settings']


@pytest.mark.slow
def test_each_process_keeps_its_part_alone(runs):
    first, second = (json.loads((runs / f'shared{rank}.json').read_text()) for rank in (0, 1))
    names = [f"the optimizer's state of linear.{i}.{part}.exp_avg" for i in (0, 1) for part in ('bias', 'weight')]
    assert sorted(first['names'] + second['names']) == names and first['names'] and second['names']
    assert first['gathered'] == second['gathered'] == 0
    assert first['alone'] == 'Optimizer state has not been consolidated on this rank'
    assert first['refused'].endswith("which hangs at a checkpoint: give its type as the string 'ZeroRedundancyOptimizer'")
    assert first['unsaved'].startswith(
        "optim_wrapper.optimizer.type='ZeroRedundancyOptimizer' needs default_hooks.checkpoint.type='AtomicCheckpointHook'"
    )
    assert 'merged into 2, equal in every option' in log_of(runs / 'shared')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['plain', 'shared'])
def test_resumed_by_three_processes_one_of_which_has_little(runs, name):
    """Moments are bit-equal, from a file with sharing and from one without; batch and length of an epoch differ."""
    state = torch.load(runs / f'{name}-3' / 'resumed.pth', weights_only=True)
    assert same(state, optimizer_of(runs / name / 'epoch_2.pth')['state']) and len(state) == 4
    log = log_of(runs / f'{name}-3')
    assert 'resume: world_size (processes) 2 -> 3' in log and 'optimizer ' not in log.split('resume:')[1]
    assert len(optimizer_of(runs / f'{name}-3' / 'epoch_4.pth')['state']) == 4


@pytest.mark.slow
def test_resumed_by_one_process(runs):
    """With a plain optimizer, and with this one, which has nobody to share with."""
    ends = [optimizer_of(runs / name / 'epoch_4.pth') for name in ('plain-1', 'shared-1')]
    assert same(*ends)
    one, two = (saved(runs / name / 'epoch_4.pth')['state_dict'] for name in ('shared-1', 'plain'))
    assert all(value.tolist() == pytest.approx(two[name].tolist(), rel=1e-5) for name, value in one.items() if value.ndim == 1)
    assert (one['linear.0.weight'] - two['linear.0.weight']).abs().max() < 1e-6
    log = log_of(runs / 'shared-1')
    assert 'resume: world_size (processes) 2 -> 1' in log


@pytest.mark.slow
def test_resumed_with_another_rate(runs):
    groups = [optimizer_of(runs / name / 'epoch_4.pth')['param_groups'] for name in ('shared', 'faster')]
    assert [[group['initial_lr'] for group in one] for one in groups] == [[0.01, 0.01], [0.02, 0.02]]
    assert [group['lr'] for group in groups[1]] == pytest.approx([2 * group['lr'] for group in groups[0]])
    assert 'resume: lr 0.01 -> 0.02' in log_of(runs / 'faster')


@pytest.mark.slow
def test_ended_by_a_signal_to_one_process(runs):
    assert json.loads((runs / 'codes.json').read_text())['last'] == 'iter_10.pth'
    assert losses(runs / 'asked') == losses(runs / 'shared')
    assert same(*(optimizer_of(runs / name / 'epoch_4.pth') for name in ('asked', 'shared')))


def test_one_process_has_the_plain_optimizer(tmp_path):
    runner, _ = run(tmp_path / 'shared', train_cfg=dict(max_epochs=1), optimizer=dict(SHARED))
    assert type(runner.optim_wrapper.optimizer) is torch.optim.AdamW
    run(tmp_path / 'plain', train_cfg=dict(max_epochs=1), optimizer=dict(type='AdamW', lr=0.1))
    assert same(*(optimizer_of(tmp_path / name / 'epoch_1.pth') for name in ('shared', 'plain')))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(optimizer_type='AdmaW'), "optimizer_type='AdmaW' .* expected an optimizer .* did you mean 'AdamW'"),
        (dict(optimizer_type='LBFGS'), "optimizer_type='LBFGS' .* treats each parameter alone"),
        (dict(optimizer_type='DAdaptAdam'), "optimizer_type='DAdaptAdam' .* treats each parameter alone"),
        (dict(weigth_decay=0.1), "unknown key 'weigth_decay' in optim_wrapper.optimizer: AdamW takes .*'weight_decay'"),
        (dict(overlap_with_ddp=True), "unknown key 'overlap_with_ddp' in optim_wrapper.optimizer"),
    ],
)
def test_a_config_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        check_part('optim_wrapper', dict(optimizer={**SHARED, **change}), TOP['optim_wrapper'])


def test_a_config_that_can_be():
    more = dict(betas=(0.9, 0.95), weight_decay=0.05, parameters_as_bucket_view=True)
    check_part('optim_wrapper', dict(type='AutocastOptimWrapper', optimizer={**SHARED, **more}), TOP['optim_wrapper'])
    assert sharded_class('MAELARS') is MAELARS and sharded_class('SGD') is torch.optim.SGD
