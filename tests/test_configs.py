"""Every leaf config: it loads, says what it is, tells the truth in its name, builds small and takes a step."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.runner import Runner

from usp_mm.engine.config_check import check_config

ROOT = Path(__file__).parent.parent
LEAVES = sorted(p.relative_to(ROOT) for p in (ROOT / 'configs').glob('[!_]*/*.py'))
SMALL = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)
leaves = pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)


@leaves
def test_docstring_gives_the_command(path):
    assert str(path) in ast.get_docstring(ast.parse((ROOT / path).read_text()))


@leaves
def test_the_name_tells_the_truth(path):
    cfg = Config.fromfile(ROOT / path)
    name = path.stem
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.train_cfg.max_epochs == int(re.search(r'-(\d+)e_', name).group(1))
    if 'linear' not in name:
        assert ('amp' in name) == (cfg.optim_wrapper.type == 'AutocastOptimWrapper')
    assert cfg.model.backbone.arch == re.search(r'vit-(\w+?)_', name).group(1)
    size = 64 if 'digits' in name else 256 if '256px' in name else 224
    assert cfg.model.backbone.img_size == size
    assert cfg.model.data_preprocessor.vae == (
        'tiny' if 'digits' in name else 'kl-f16d16' if 'kl-f16d16' in name else 'pixel' if 'mae' in name else 'sd-f8d4'
    )
    if 'linear' in name:
        depth = {'tiny': 4, 'base': 12, 'large': 24}[cfg.model.backbone.arch]
        assert cfg.model.backbone.frozen_stages == depth
    assert 'end' not in cfg.param_scheduler[-1]  # runs to the end of training, however long


@leaves
def test_builds_small_and_steps(path, small_world, tmp_path):
    cfg = small_world.shrink(Config.fromfile(ROOT / path))
    check_config(cfg)
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 1
    records = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert torch.isfinite(torch.tensor(records[0]['loss']))
    assert {key.split('.')[0] for key in runner.model.state_dict()} <= {'backbone', 'neck', 'head'}


def test_every_leaf_stands_in_a_metafile_of_the_model_index():
    listed = []
    for metafile in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        listed += [model['Config'] for model in yaml.safe_load((ROOT / metafile).read_text())['Models']]
    assert sorted(listed) == sorted(map(str, LEAVES))
