"""A compiled training from end to end, resumed."""

import pytest
from helpers.resumed_runs import resumed_to_the_bit
from helpers.small_generation import shrink_generation
from helpers.small_world import load_leaf

SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px-latents.py'
pytestmark = pytest.mark.slow


def test_resumed_to_the_bit(small_world, tmp_path):
    def config(iterations):
        cfg = shrink_generation(small_world, load_leaf(SIT))
        cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size, cfg.model.compile = iterations, 2, 'blocks'
        cfg.default_hooks.visualization.interval = 1000
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    whole = resumed_to_the_bit(config, tmp_path)
    assert not any('_orig_mod' in name for name in whole['state_dict'])
