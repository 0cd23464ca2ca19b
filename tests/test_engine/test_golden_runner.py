"""The official understanding numbers through Runners of the ImageNet configs, at the sizes they were recorded with."""

import json

import numpy as np
import pytest
import torch
from helpers.golden import GOLDEN, load, official_weights
from helpers.small_world import ROOT
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from usp_mm.checkpoints import from_official

GOLD = json.loads((GOLDEN / 'optim.json').read_text())
FINETUNE = 'configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'
CLS_TOKEN = 'configs/vit/vit-base_usp-pre_cls-token_8xb128-amp-coslr-100e_in1k.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
PRETRAIN = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'


def build_runner(small_world, tmp_path, path, depth):
    """The config's Runner, its network at golden size: width 48, 3 heads, 4x8x8 latents, 10 classes, float32."""
    cfg = small_world.shrink(Config.fromfile(ROOT / path))
    cfg.model.backbone.update(arch=dict(embed_dims=48, depth=depth, num_heads=3), img_size=64, init_cfg=None)
    cfg.model.backbone.drop_path_rate = 0.0
    if 'frozen_stages' in cfg.model.backbone:
        cfg.model.backbone.frozen_stages = depth
    if 'num_classes' in cfg.model.head:
        cfg.model.head.num_classes = 10
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.work_dir = str(tmp_path)
    return Runner.from_cfg(cfg)


def test_parameter_groups_of_fine_tuning(small_world, tmp_path):
    runner = build_runner(small_world, tmp_path, FINETUNE, depth=12)
    wrapper = runner.build_optim_wrapper(runner.cfg.optim_wrapper)
    ours = {}
    for group in wrapper.optimizer.param_groups:
        name = group['param_name'].removeprefix('backbone.').replace('head.layers.head.', 'head.')
        ours[name] = [group['lr_scale'], group['weight_decay']]
        assert group['lr'] == pytest.approx(4e-3 * group['lr_scale'])
    expected = GOLD['layer_decay_075_depth12']
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        assert ours[name] == pytest.approx(values, abs=1e-7), name


def test_learning_rates_of_pretraining(small_world, tmp_path):
    """500 iterations an epoch. MMEngine's warm-up reaches its peak one iteration earlier, 1 / 20,000 of it."""
    cfg = small_world.shrink(Config.fromfile(ROOT / PRETRAIN))
    schedulers = Config.fromfile(ROOT / PRETRAIN).param_scheduler
    cfg.merge_from_dict(dict(param_scheduler=schedulers, train_cfg=dict(max_epochs=800), work_dir=str(tmp_path)))
    four_images = cfg.train_dataloader.pop('dataset')
    cfg.train_dataloader.update(batch_size=1, dataset=dict(type='RepeatDataset', times=125, dataset=four_images))
    cfg.optim_wrapper.update(type='OptimWrapper', paramwise_cfg=None)  # one group: 400,000 steps of the schedulers follow
    runner = Runner.from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    per_epoch = len(runner.train_dataloader)
    assert per_epoch == 500
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    built = runner.build_param_scheduler(cfg.param_scheduler)
    expected = {round(epoch * per_epoch): lr for epoch, lr in GOLD['lr_800ep_warmup40_peak2p4e3']}
    found = {}
    for iteration in range(max(expected) + 1):
        if iteration in expected:
            found[iteration] = runner.optim_wrapper.optimizer.param_groups[0]['lr']
        for scheduler in built:
            scheduler.step()
    assert found == pytest.approx(expected, rel=6e-5, abs=1e-11)


@pytest.mark.parametrize(('path', 'name'), [(CLS_TOKEN, 'classify_token'), (FINETUNE, 'classify_avg')])
def test_logits_from_an_official_checkpoint(small_world, tmp_path, path, name):
    runner = build_runner(small_world, tmp_path, path, depth=2)
    official = official_weights(name.replace('classify_', 'timm-'))
    torch.save(dict(state_dict=from_official(official)), tmp_path / 'official.pth')
    runner.load_checkpoint(str(tmp_path / 'official.pth'), strict=True)
    runner.model.eval()
    golden = load(name)
    with torch.no_grad():
        np.testing.assert_allclose(runner.model(torch.from_numpy(golden['x']), mode='tensor'), golden['logits'], atol=1e-5)


def test_three_lars_steps_of_the_linear_probe(small_world, tmp_path):
    runner = build_runner(small_world, tmp_path, LINEAR, depth=2)
    golden, model = load('linear_probe_lars'), runner.model.train()
    model.head.layers.head.load_state_dict({k: torch.from_numpy(golden[f'{k}0']) for k in ('weight', 'bias')})
    cfg = runner.cfg.optim_wrapper
    assert cfg.optimizer.lr == pytest.approx(0.1 * 16384 / 256)
    cfg.optimizer.lr = 3.2
    optimizer = runner.build_optim_wrapper(cfg)
    for step in range(3):
        features = torch.from_numpy(golden[f'features{step}'])
        labels = [DataSample().set_gt_label(label) for label in golden[f'labels{step}'].tolist()]
        loss = model.head.loss(model.neck((features,)), labels)['loss']
        np.testing.assert_allclose(loss.item(), golden[f'loss{step}'], rtol=0, atol=1e-5)
        optimizer.update_params(loss)
        linear = model.head.layers.head
        np.testing.assert_allclose(linear.weight.detach(), golden[f'weight{step + 1}'], rtol=0, atol=1e-5)
        np.testing.assert_allclose(linear.bias.detach(), golden[f'bias{step + 1}'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.neck.bn.running_mean, golden['running_mean'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.neck.bn.running_var, golden['running_var'], rtol=0, atol=1e-5)
