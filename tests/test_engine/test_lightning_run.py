"""The digits demo with LightningDiT's recipe, through the Runner: from pretraining to samples, with a resume in between."""

import json

import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_world import ARCH, ROOT, train_quickly
from mmengine.config import Config

from usp_mm.sampling.draw import load_generator

PRETRAINING = ROOT / 'configs/usp/usp_vit-tiny_lightning_1xb64-coslr-120e_digits.py'
GENERATOR = ROOT / 'configs/sit/sit-tiny-p2_usp-pre_lightning_1xb64-2k_digits.py'


def weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def generator_config(small_world, checkpoint, iterations, **kwargs):
    cfg = shrink_generation(small_world, Config.fromfile(GENERATOR))
    cfg.model.denoiser.update(arch=dict(ARCH))
    cfg.model.denoiser.init_cfg.checkpoint = str(checkpoint)
    cfg.train_cfg.update(max_iters=iterations, val_interval=4)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.update(kwargs)
    return cfg


def test_pretraining_starts_a_generator_that_resumes_to_the_bit_and_samples(small_world, tmp_path):
    train_quickly(small_world.shrink(Config.fromfile(PRETRAINING)), tmp_path / 'usp')
    encoder = tmp_path / 'usp' / 'epoch_1.pth'
    pretrained = weights(encoder)['state_dict']
    assert pretrained['backbone.blocks.0.mlp.w12.weight'].shape == (2 * 85, 32)

    whole = train_quickly(generator_config(small_world, encoder, 4), tmp_path / 'whole')
    halves = [dict(), dict(resume=True, load_from=str(tmp_path / 'halves' / 'iter_2.pth'))]
    for iterations, kwargs in zip((2, 4), halves, strict=True):
        train_quickly(generator_config(small_world, encoder, iterations, **kwargs), tmp_path / 'halves')
    final, other = (weights(tmp_path / run / 'iter_4.pth') for run in ('whole', 'halves'))
    for name, value in final['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name
    for key, state in final['optimizer']['state'].items():
        assert all(torch.equal(value, other['optimizer']['state'][key][name]) for name, value in state.items())
    assert final['state_dict']['denoiser_ema.steps'] == 4

    key = 'blocks.0.mlp.w12.weight'
    moved = (final['state_dict'][f'denoiser.{key}'] - pretrained[f'backbone.{key}']).abs().max()
    assert 0 < moved < 4 * 1.1e-3  # four steps of AdamW at 1e-3 from the pretrained weights
    lines = next((tmp_path / 'whole').glob('*/vis_data/scalars.json')).read_text().splitlines()
    records = [r for r in map(json.loads, lines) if 'loss' in r]
    assert [r['step'] for r in records] == [1, 2, 3, 4]
    totals = [r['flow'] + r['cosine'] for r in records]  # 'loss' is logged as the mean so far
    assert records[-1]['loss'] == pytest.approx(sum(totals) / 4, abs=1e-5) and min(r['cosine'] for r in records) > 0

    loaded = load_generator(whole.cfg, str(tmp_path / 'whole' / 'iter_4.pth'), device='cpu').model
    images = loaded.sample([3, 4], [0, 1])
    assert torch.equal(images, whole.model.sample([3, 4], [0, 1])) and images.shape == (2, 3, 64, 64)
