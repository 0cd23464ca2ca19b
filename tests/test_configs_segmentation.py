"""Segmentation configs: the name tells the truth, and they build, step and validate."""

import json
import re

import pytest
import torch
from helpers.small_segmentation import SEGMENTATION, shrink_segmentation
from helpers.small_world import load_leaf, train_quickly

from usp_mm.analysis.complexity import build_meta
from usp_mm.engine.checks.config import check_config
from usp_mm.presets import ARCHS

leaves = pytest.mark.parametrize('path', SEGMENTATION, ids=lambda p: p.stem)


@leaves
def test_the_name_tells_the_truth(path):
    cfg, name = load_leaf(path), path.stem
    check_config(cfg, initialises=False)
    with pytest.raises(ValueError, match=r'model\.backbone\.init_cfg\.checkpoint is unset'):
        check_config(cfg)
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (batch, gpus * batch)
    assert cfg.train_cfg.max_iters == 1000 * int(re.search(r'-(\d+)k_', name).group(1))
    assert ('amp' in name) == (cfg.optim_wrapper.type == 'AutocastOptimWrapper')
    assert cfg.model.backbone.arch == re.search(r'vit-(\w+?)_', name).group(1)
    side = 64 if 'digits' in name else 512
    assert cfg.model.data_preprocessor.size == (side, side) and cfg.model.backbone.img_size == side
    assert cfg.model.test_cfg.mode == ('whole' if 'whole' in name else 'slide')
    decay = cfg.optim_wrapper.paramwise_cfg.get('layer_decay_rate')
    assert decay == (0.65 if 'layerdecay065' in name else None)
    assert 'end' not in cfg.param_scheduler[-1]


@leaves
def test_full_size_has_the_blocks_of_table_1(path):
    cfg = load_leaf(path)
    model, row = build_meta(cfg), ARCHS[cfg.model.backbone.arch]
    width = row['embed_dims']
    assert sum(p.numel() for p in model.backbone.blocks.parameters()) == row['depth'] * (12 * width * width + 13 * width)
    assert model.decode_head.channels == width and all(p.is_meta for p in model.parameters())


@leaves
def test_builds_small_steps_and_validates(path, small_world, tmp_path):
    cfg = shrink_segmentation(small_world, load_leaf(path))
    del cfg.default_hooks['run_info']  # it counts operations, which takes longer than the training
    check_config(cfg)
    runner = train_quickly(cfg, tmp_path)
    assert runner.iter == 1
    records = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert records[0]['loss'] == pytest.approx(records[0]['decode.loss_ce'] + records[0]['aux.loss_ce'], abs=1e-5)
    assert 0 <= records[1]['mIoU'] <= 100
    saved = torch.load(tmp_path / 'iter_1.pth', weights_only=True)['state_dict']
    assert {name.split('.')[0] for name in saved} == {'backbone', 'neck', 'decode_head', 'auxiliary_head'}
    assert not any('codec' in name or 'vae' in name for name in saved)
    if 'layerdecay065' in path.stem:
        groups = runner.optim_wrapper.optimizer.param_groups
        scales = {name: group['lr_scale'] for group in groups for name in group['param_names']}
        assert scales['backbone.blocks.0.norm1.bias'] == pytest.approx(0.65**4)
        assert scales['decode_head.conv_seg.bias'] == 1 and len(groups) == 12
