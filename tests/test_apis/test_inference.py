"""mmpretrain's inferencers on our classifiers: our subclass's numbers are evaluation's, upstream's own class works."""

import numpy as np
import pytest
import torch
from helpers.small_world import train_quickly
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmpretrain import FeatureExtractor, ImageClassificationInferencer
from mmpretrain.registry import TRANSFORMS

from usp_mm.apis import image_config, inferencer
from usp_mm.apis.predictions import _entry
from usp_mm.apis.segmentation import _shares

CONFIG = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
CACHED = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'


@pytest.fixture(scope='module', params=[CONFIG, CACHED], ids=['images', 'latents'])
def classifier(request, small_world, tmp_path_factory):
    """Config and checkpoint of a classifier of two digits."""
    folder = tmp_path_factory.mktemp('classifier')
    cfg = small_world.shrink(Config.fromfile(request.param))
    if request.param == CACHED:
        cfg.model.data_preprocessor.load_vae = False
    train_quickly(cfg, folder)
    return cfg, str(folder / 'epoch_1.pth')


@pytest.fixture
def images(small_world):
    return [str(path) for path in sorted((small_world.images / 'val').rglob('*.png'))]


def batch_of(cfg, images):
    pipeline = Compose([TRANSFORMS.build(step) for step in image_config(cfg).test_dataloader.dataset.pipeline])
    return default_collate([pipeline(dict(img_path=path, sample_idx=i)) for i, path in enumerate(images)])


def test_scores_and_features_are_the_models(classifier, images):
    cfg, checkpoint = classifier
    classify = inferencer(cfg, checkpoint, device='cpu')
    found = classify(images, batch_size=3)
    with torch.no_grad():
        expected = classify.model.test_step(batch_of(cfg, images))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one['pred_scores'], other.pred_score, atol=1e-6)
        assert one['pred_class'] == str(one['pred_label'])

    embed = inferencer(cfg, checkpoint, kind='embed', device='cpu')
    features = torch.stack([one[-1] for one in embed(images, batch_size=3, stage='backbone')])
    with torch.no_grad():
        latents = embed.model.data_preprocessor(batch_of(cfg, images))['inputs']
        torch.testing.assert_close(features, embed.model.backbone(latents)[-1], atol=1e-6, rtol=0)
    assert features.shape == (4, 32)

    # mmpretrain's own classes decode by themselves: the digits are PNGs, without loss
    theirs = ImageClassificationInferencer(image_config(cfg), pretrained=checkpoint, device='cpu')(images)
    for one, other in zip(found, theirs, strict=True):
        np.testing.assert_allclose(one['pred_scores'], other['pred_scores'], atol=1e-6)
        assert one['pred_class'] == other['pred_class']
    extract = FeatureExtractor(image_config(cfg), pretrained=checkpoint, device='cpu')
    torch.testing.assert_close(torch.stack([one[-1] for one in extract(images, stage='backbone')]), features, atol=1e-6, rtol=0)


def test_bad_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth is not a file'):
        inferencer(CONFIG, tmp_path / 'nothing.pth')
    with pytest.raises(ValueError, match="kind='segment' must be one of"):
        inferencer(CONFIG, tmp_path / 'nothing.pth', kind='segment')
    with pytest.raises(ValueError, match="got 'USP'"):
        image_config(Config.fromfile('configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'))


def test_a_wrapper_around_test_data_keeps_its_pipeline(classifier):
    cfg = image_config(classifier[0])
    pipeline = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.test_dataloader.dataset)
    assert [dict(step) for step in image_config(cfg).test_dataloader.dataset.pipeline] == pipeline


def test_a_label_without_a_name_is_its_number():
    assert _entry(['a'], 1, 0.5) == {'label': 1, 'class': None, 'score': 0.5}
    assert _shares(np.array([[0, 2]]), ['a', 'b']) == [
        {'label': 0, 'class': 'a', 'share': 0.5}, {'label': 2, 'class': '2', 'share': 0.5},
    ]  # fmt: skip
