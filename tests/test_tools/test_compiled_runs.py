"""A compiled training from end to end, resumed."""

import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_world import load_leaf, train_quickly

SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px-latents.py'
pytestmark = pytest.mark.slow


def test_resumed_to_the_bit(small_world, tmp_path):
    def config(iterations):
        cfg = shrink_generation(small_world, load_leaf(SIT))
        cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size, cfg.model.compile = iterations, 2, 'blocks'
        cfg.default_hooks.visualization.interval = 1000
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    train_quickly(config(4), tmp_path / 'whole')
    train_quickly(config(2), tmp_path / 'killed')
    cfg = config(4)
    cfg.resume = True
    train_quickly(cfg, tmp_path / 'killed')
    whole, resumed = (torch.load(tmp_path / run / 'iter_4.pth', weights_only=True) for run in ('whole', 'killed'))
    assert not any('_orig_mod' in name for name in whole['state_dict'])
    for name, value in whole['state_dict'].items():
        assert torch.equal(value, resumed['state_dict'][name]), name
    for key, state in whole['optimizer']['state'].items():
        assert all(torch.equal(value, resumed['optimizer']['state'][key][name]) for name, value in state.items())
