"""The classifiers whose features judge samples: the name tells the truth, and the checkpoint serves the metric."""

import re

import pytest
import torch
from helpers.small_world import ROOT, train_quickly
from mmengine.config import Config

from usp_mm.engine.checks.config import check_config
from usp_mm.evaluation import ClassifierFeatures

FEATURES = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs' / 'features').glob('*.py'))


@pytest.mark.parametrize('path', FEATURES, ids=lambda p: p.stem)
def test_trains_and_gives_features(path, demo_data, tmp_path):
    cfg = Config.fromfile(ROOT / path)
    width, gpus, batch, epochs = map(int, re.fullmatch(r'resnet18-w(\d+)_(\d+)xb(\d+)-coslr-(\d+)e_digits', path.stem).groups())
    assert cfg.model.backbone.base_channels == width and cfg.train_cfg.max_epochs == epochs
    assert cfg.train_dataloader.batch_size == batch and cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert 'end' not in cfg.param_scheduler[-1]

    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset.data_root = str(demo_data / 'imagenet')
    cfg.train_dataloader.batch_size = 8
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0)]
    cfg.default_hooks.checkpoint.interval = 1
    check_config(cfg)
    runner = train_quickly(cfg, tmp_path)
    assert runner.iter == 5
    extractor = ClassifierFeatures(str(ROOT / path), tmp_path / 'epoch_1.pth')
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    features = extractor(images)
    assert features.shape == (3, 8 * width)
    wanted = runner.model.eval().extract_feat((images.float() - 127.5) / 127.5)[-1]
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)
