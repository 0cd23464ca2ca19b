"""Upstream's inferencers take our configs and checkpoints as they are."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from mmseg.apis import MMSegInferencer
from PIL import Image
from small_segmentation import shrink_segmentation
from small_world import ROOT, train_quickly

FINETUNE = 'configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'
UPERNET = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'


@pytest.fixture(scope='module')
def classifier(small_world, tmp_path_factory):
    """(config, checkpoint) of a classifier of two digits at 224 pixels."""
    folder = tmp_path_factory.mktemp('classifier')
    cfg = small_world.shrink(Config.fromfile(ROOT / FINETUNE))
    train_quickly(cfg, folder)
    cfg.model.backbone.init_cfg = None
    return cfg, folder / 'epoch_1.pth'


@pytest.fixture(scope='module')
def images(small_world):
    return sorted(map(str, (small_world.images / 'val').rglob('*.png')))


def test_classification(classifier, images):
    cfg, checkpoint = classifier
    inferencer = ImageClassificationInferencer(cfg, pretrained=str(checkpoint), device='cpu')
    found = inferencer(images, batch_size=3)
    inputs = [inferencer.pipeline(dict(img=np.array(Image.open(path))[..., ::-1])) for path in images]
    expected = inferencer.model.test_step(default_collate(inputs))
    assert {one['pred_class'] for one in found} <= {'0', '1'}
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours['pred_scores'], theirs.pred_score.detach(), rtol=0, atol=1e-6)
        assert ours['pred_label'] == int(theirs.pred_label)


def test_features(classifier, images):
    cfg, checkpoint = classifier
    extractor = FeatureExtractor(cfg, pretrained=str(checkpoint), device='cpu')
    found = torch.stack([features[-1] for features in extractor(images, batch_size=4)])
    inputs = [extractor.pipeline(dict(img=np.array(Image.open(path))[..., ::-1])) for path in images]
    data = extractor.model.data_preprocessor(default_collate(inputs))
    with torch.no_grad():
        expected = extractor.model.backbone(data['inputs'])[-1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_segmentation(small_world, tmp_path):
    cfg = shrink_segmentation(small_world, Config.fromfile(ROOT / UPERNET))
    train_quickly(cfg, tmp_path)
    cfg.model.backbone.init_cfg = None
    cfg.dump(tmp_path / 'config.py')
    inferencer = MMSegInferencer(str(tmp_path / 'config.py'), weights=str(tmp_path / 'iter_1.pth'), device='cpu')
    scene = sorted((small_world.digits.parents[1] / 'ade20k' / 'images' / 'validation').iterdir())[0]
    out = inferencer(str(scene), out_dir=str(tmp_path / 'out'))
    assert out['predictions'].shape == (128, 128) and out['predictions'].max() < 11
    assert Image.open(tmp_path / 'out' / 'vis' / scene.name).size == (128, 128)
