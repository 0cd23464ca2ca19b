"""Detection configs: the name tells the truth, their encoder and pyramid build; with mmcv's operators, they train and test."""

import json
import re

import pytest
import torch
from helpers.small_detection import DETECTION, SIDE, shrink_detection
from helpers.small_world import load_leaf, train_quickly
from mmengine.registry import MODELS

from usp_mm.datasets.demo_scenes import DemoScenes, make_demo_scenes
from usp_mm.detection.pyramid import SimpleFeaturePyramid
from usp_mm.engine.checks.config import check_config
from usp_mm.presets import ARCHS

leaves = pytest.mark.parametrize('path', DETECTION, ids=lambda p: p.stem)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes') / 'scenes'
    make_demo_scenes(folder, DemoScenes(train_scenes=6, val_scenes=4, scene_size=SIDE))
    return folder


@leaves
def test_the_name_tells_the_truth(path):
    cfg, name = load_leaf(path), path.stem
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (batch, gpus * batch)
    assert cfg.train_cfg.max_iters // 1000 == int(re.search(r'-(\d+)k_', name).group(1))
    assert ('amp' in name) == (cfg.optim_wrapper.type == 'AutocastOptimWrapper')
    assert cfg.model.backbone.arch == re.search(r'vit-(\w+?)_', name).group(1)
    assert ('mae-pre' in name) == (cfg.model.backbone.vae.name == 'pixel')
    side = int(name.rsplit('x', 1)[1])
    assert cfg.model.data_preprocessor.pad_size_divisor == side and cfg.model.backbone.img_size == side
    assert ('lsj' in name) == any(step.type == 'RandomResize' for step in cfg.train_dataloader.dataset.pipeline)
    data = cfg.val_dataloader.dataset
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == f'{data.data_root}/{data.ann_file}'
    assert cfg.param_scheduler[-1].milestones[-1] < cfg.train_cfg.max_iters
    assert cfg.default_scope == 'mmdet' and 'end' not in cfg.param_scheduler[-1]


def test_the_recipe_is_vitdets():
    """Its official config mask_rcnn_vitdet_b_100ep, and appendix A.2 of the paper."""
    cfg = load_leaf(next(path for path in DETECTION if 'vit-base_usp-pre' in path.stem))
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (1e-4, 0.1)
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.7 and cfg.model.backbone.drop_path_rate == 0.1
    assert cfg.train_cfg.max_iters * cfg.auto_scale_lr.base_batch_size == 100 * 118_000
    assert cfg.param_scheduler[1].milestones == [163_889, 177_546]


@leaves
def test_full_size_encoder_and_pyramid_fit(path):
    """The parts that need neither mmdet nor the operators, on the meta device: five maps, of strides 4 to 64."""
    cfg = load_leaf(path)
    width, row, side = ARCHS[cfg.model.backbone.arch]['embed_dims'], ARCHS[cfg.model.backbone.arch], cfg.model.backbone.img_size
    backbone = {key: value for key, value in cfg.model.backbone.to_dict().items() if key not in ('init_cfg', 'encode_images')}
    with torch.device('meta'):
        encoder = MODELS.build(dict(backbone, out_type='featmap', final_norm=False))
        neck = {key: value for key, value in cfg.model.neck.items() if key != 'type'}
        pyramid = SimpleFeaturePyramid(width, **neck)
        geometry = encoder.geometry
        latent = torch.empty(1, geometry.channels, geometry.latent_size, geometry.latent_size)
        maps = pyramid(encoder(latent))
    blocks = row['depth'] * (12 * width * width + 13 * width)
    assert sum(p.numel() for p in encoder.blocks.parameters()) == blocks
    strides = cfg.model.rpn_head.anchor_generator.strides
    assert [tuple(one.shape) for one in maps] == [(1, neck['out_channels'], side // s, side // s) for s in strides]
    assert cfg.model.rpn_head.in_channels == cfg.model.roi_head.bbox_head.in_channels == neck['out_channels']


@pytest.mark.mmcv_ops
@leaves
def test_builds_small_steps_and_validates(path, small_world, scenes, tmp_path):
    cfg = shrink_detection(small_world, load_leaf(path), scenes)
    del cfg.default_hooks['run_info']
    check_config(cfg)
    runner = train_quickly(cfg, tmp_path)
    records = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    parts = [records[0][name] for name in ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask')]
    assert records[0]['loss'] == pytest.approx(sum(parts), abs=1e-4)
    with torch.no_grad():  # boxes and masks on the scale of the file, in float32 where encoder and heads compute in bfloat16
        (found, *_) = runner.model.test_step(next(iter(runner.val_dataloader)))
    boxes, masks = found.pred_instances.bboxes, found.pred_instances.masks
    assert len(boxes) > 0 and boxes.dtype == torch.float32 and masks.shape == (len(boxes), SIDE, SIDE)
    assert boxes.min() >= 0 and boxes.max() <= SIDE
    assert all(-1 <= records[1][f'coco/{kind}_mAP'] <= 1 for kind in ('bbox', 'segm'))
    saved = torch.load(tmp_path / 'iter_1.pth', weights_only=True)['state_dict']
    assert {name.split('.')[0] for name in saved} == {'backbone', 'neck', 'rpn_head', 'roi_head'}
    assert not any('codec' in name or 'vae' in name for name in saved)
    groups = runner.optim_wrapper.optimizer.param_groups
    scales = {name: (group['lr_scale'], group['weight_decay']) for group in groups for name in group['param_names']}
    assert scales['backbone.blocks.0.norm1.weight'] == (pytest.approx(0.7**2), 0)
    assert scales['backbone.blocks.0.attn.qkv.weight'] == (pytest.approx(0.7**2), 0.1)
    assert scales['neck.levels.0.up1.weight'] == (1, 0.1) and scales['neck.levels.0.up1_norm.weight'] == (1, 0)
