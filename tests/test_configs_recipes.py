"""The recipes of the configs, read out of what is built from them, against the paper and the official scripts."""

import math
import random

import numpy as np
import pytest
import torch
from helpers.small_generation import GENERATION
from helpers.small_world import ROOT, load_leaf
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from timm.data.random_erasing import RandomErasing

from usp_mm.analysis.complexity import build_meta

VIT = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs' / 'vit').glob('*in1k*.py'))
FINETUNE = [path for path in VIT if 'linear' not in path.stem]
LINEAR = [path for path in VIT if 'linear' in path.stem]


def built(pipeline, kind):
    """The only transform of a type in a pipeline."""
    (step,) = [step for step in pipeline if step.type == kind]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return TRANSFORMS.build(step)


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


@pytest.mark.parametrize('path', FINETUNE, ids=lambda p: p.stem)
def test_fine_tuning_erases_as_the_official_script(path):
    """--reprob 0.25 --remode pixel --recount 1: timm's defaults otherwise, of the normalised image, as the last step."""
    cfg = load_leaf(path)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline[-2:]] == ['PixelRandomErasing', 'PackInputs'] and pipeline[0].type == 'SeedBySample'
    transform, official = built(pipeline, 'PixelRandomErasing'), RandomErasing(0.25, mode='pixel', max_count=1, device='cpu')
    assert vars(transform.eraser) == vars(official)
    assert (official.probability, official.min_count, official.max_count, official.per_pixel) == (0.25, 1, 1, True)
    preprocessor = build_meta(cfg).data_preprocessor
    for name in ('mean', 'std'):
        values = cfg.model.data_preprocessor.get(name, [127.5] * 3)
        assert getattr(transform, name)[::-1].tolist() == pytest.approx(values)  # of BGR images
    assert preprocessor.bgr_to_rgb and ('mae-pre' in path.stem) == (transform.mean[0] < 127)


@pytest.mark.parametrize('path', VIT, ids=lambda p: p.stem)
def test_evaluation_resizes_as_the_official_script(path):
    """Up to 224 pixels to 256/224 of the side (crop_pct 0.875), above to the side itself (1.0); bicubic."""
    cfg = load_leaf(path)
    side = cfg.model.backbone.img_size
    resize = math.floor(side / (224 / 256)) if side <= 224 else side
    assert (side, resize) == ((256, 256) if '256px' in path.stem else (224, 256))
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        edge = built(loader.dataset.pipeline, 'ResizeEdge')
        crop = built(loader.dataset.pipeline, 'CenterCrop')
        assert (edge.scale, edge.edge, edge.interpolation, edge.backend) == (resize, 'short', 'bicubic', 'pillow')
        assert crop.crop_size == (side, side)


@pytest.mark.parametrize('path', LINEAR, ids=lambda p: p.stem)
def test_probes_crop_as_mae_does(path):
    """MAE's util/crop.py: one draw, cut to the frame. The mean area of a crop of 500x375 pixels is 0.518."""
    cfg = load_leaf(path)
    crop = built(cfg.train_dataloader.dataset.pipeline, 'MAERandomResizedCrop')
    side = cfg.model.backbone.img_size
    assert (crop.size, crop.interpolation.value) == ((side, side), 'bicubic')
    assert (crop.scale, crop.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
    assert mean_area(crop) == pytest.approx(0.518, abs=0.006)


def test_torchvisions_crop_is_smaller():
    """What fine-tuning has: 0.435 by the same measure."""
    crop = built(load_leaf(FINETUNE[0]).train_dataloader.dataset.pipeline, 'RandomResizedCrop')
    frame = np.empty((375, 500, 3), np.uint8)
    seed(0)
    areas = [math.prod(crop.rand_crop_params(frame)[2:]) / (375 * 500) for _ in range(10_000)]
    assert np.mean(areas) == pytest.approx(0.435, abs=0.006)


def mean_area(crop):
    """Of 10,000 crops of a frame of 500x375 pixels, as a share of it; the standard error is 0.003."""
    frame = Image.new('RGB', (500, 375))
    seed(0)
    crops = np.array([crop.get_params(frame, crop.scale, crop.ratio) for _ in range(10_000)])
    top, left, height, width = crops.T
    assert (crops >= 0).all() and (top + height <= 375).all() and (left + width <= 500).all()
    return (height * width).mean() / (375 * 500)


@pytest.mark.parametrize('path', LINEAR[:1], ids=lambda p: p.stem)
def test_the_probes_pipeline_keeps_the_channels_order(path):
    """Through PIL and back: what comes out is the image's colours, BGR as mmcv loads them."""
    cfg = load_leaf(path)
    pipeline, results = cfg.train_dataloader.dataset.pipeline, dict(img=np.full((50, 60, 3), [10, 20, 30], np.uint8))
    for kind in ('ToPIL', 'MAERandomResizedCrop', 'ToNumpy'):
        results = built(pipeline, kind)(results)
    side = cfg.model.backbone.img_size
    assert results['img'].shape == (side, side, 3) and (results['img'] == [10, 20, 30]).all()


@pytest.mark.parametrize('path', GENERATION, ids=lambda p: p.stem)
def test_repa_alone_clips_the_gradients(path):
    """At a norm of 1, REPA's --max-grad-norm. The arms on emoji all do, so that they differ in nothing else."""
    cfg = load_leaf(path)
    clips = 'repa' in path.stem or '_emoji-128px' in path.stem
    assert cfg.optim_wrapper.get('clip_grad') == (dict(max_norm=1.0) if clips else None)
    assert ('repa' in cfg.model) == ('repa' in path.stem)


@pytest.mark.parametrize('affine', [True, False])
def test_a_pixel_mae_starts_a_generator_with_and_without_its_norms_affine(affine):
    """Table 8a, both ways."""
    name = f'dit-base-p2_mae-pre_{"" if affine else "noaffine_"}8xb32-400k_in1k-256px'
    cfg = load_leaf(f'configs/dit/{name}.py')
    init = cfg.model.denoiser.init_cfg
    assert (init.load_patch_embed, init.get('load_norms', True)) == (False, affine)
    norms = {key for key in build_meta(cfg).denoiser.state_dict() if '.norm1.' in key}
    assert len(norms) == (24 if affine else 0)
