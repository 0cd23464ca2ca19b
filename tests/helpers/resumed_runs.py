"""Settings of runs that are resumed, and what is compared of them."""

import re

import torch

from helpers.small_world import train_quickly
from helpers.toy_runs import log_of, saved

WARM_COSINE = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, eta_min=0.0, convert_to_iter_based=True),
]
EIGHT = dict(train_cfg=dict(max_epochs=8), schedulers=WARM_COSINE)
BATCH, LENGTH = 'batch_size (samples a process and iteration) {} -> {}', 'iters_per_epoch (iterations an epoch) {} -> {}'
FORTY = dict(
    train_cfg=dict(max_iters=40),
    schedulers=[
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
        dict(type='PolyLR', eta_min=0.01, power=0.9, by_epoch=False, begin=5),
    ],
    checkpoint=dict(interval=4),
)


def told(folder):
    return re.findall(r'(?:WARNING|INFO) - resume: (.*)', log_of(folder))


def assert_same(first, second):
    """Weights, moments and hyper-parameters of two checkpoints to the bit."""
    assert first['meta']['epoch'] == second['meta']['epoch'] and first['meta']['iter'] == second['meta']['iter']
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name
    assert first['optimizer']['param_groups'] == second['optimizer']['param_groups']
    for key, state in first['optimizer']['state'].items():
        assert all(torch.equal(value, second['optimizer']['state'][key][name]) for name, value in state.items())


def assert_follows(recorder, whole):
    """All hyper-parameters of each iteration are those of an uninterrupted run."""
    start = min(recorder.groups)
    assert recorder.groups == {iteration: groups for iteration, groups in whole.groups.items() if iteration >= start}


def resumed_to_the_bit(config, folder):
    """Checkpoint of four iterations of `config(iterations)`, which two, resumed to four, end with as well."""
    train_quickly(config(4), folder / 'whole')
    train_quickly(config(2), folder / 'killed')
    cfg = config(4)
    cfg.resume = True
    train_quickly(cfg, folder / 'killed')
    whole, resumed = (saved(folder / run / 'iter_4.pth') for run in ('whole', 'killed'))
    assert_same(whole, resumed)
    return whole
