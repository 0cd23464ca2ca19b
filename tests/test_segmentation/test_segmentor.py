"""USPSegmentor: the classifier's features, windows in pixels, sizes that are no square."""

import subprocess
import sys

import pytest
import torch
from helpers.small_segmentation import shrink_segmentation
from helpers.small_world import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmseg.structures import SegDataSample

from usp_mm.models import USPViT
from usp_mm.segmentation.segmentor import feature_blocks
from usp_mm.vaes import build_codec

BASE = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'


@pytest.fixture
def cfg(small_world):
    return shrink_segmentation(small_world, Config.fromfile(ROOT / BASE))


def build(cfg):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    return model.eval()


def images(*size):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def predict(model, x):
    meta = dict(img_shape=x.shape[2:], ori_shape=x.shape[2:], pad_shape=x.shape[2:], padding_size=[0] * 4)
    with torch.no_grad():
        (found,) = model(x, [SegDataSample(metainfo=meta)], mode='predict')
    return found.seg_logits.data


def test_features_are_the_classifiers_tokens(cfg, small_world):
    """At 14x14 tokens, after each of the four blocks; the last without the final norm."""
    cfg.model.backbone.img_size = 224
    segmentor = build(cfg)
    latents_of = build_codec('tiny', path=small_world.tiny_vae_folder)
    tokens = USPViT(arch=cfg.model.backbone.arch, vae='tiny', img_size=224, out_type='raw', out_indices=(0, 1, 2, 3))
    missing, unexpected = tokens.load_state_dict(segmentor.backbone.state_dict(), strict=False)
    assert missing == ['norm.weight', 'norm.bias'] and not unexpected
    tokens.norm = torch.nn.Identity()
    x = images(224, 224)
    with torch.no_grad():
        expected = tokens.eval()(latents_of.mode(latents_of.encode(x)))
        found = segmentor.backbone(x)
    assert len(found) == 4 and found[0].shape == (1, 32, 14, 14)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.flatten(2).transpose(1, 2), theirs[:, 1:], rtol=0, atol=1e-5)


def test_slide_inference_of_one_window_is_whole_inference(cfg):
    slide = build(cfg)
    cfg.model.test_cfg = dict(mode='whole')
    whole = build(cfg)
    x = images(64, 64)
    torch.testing.assert_close(predict(slide, x), predict(whole, x), rtol=0, atol=1e-5)
    wide = images(64, 112)
    assert (predict(slide, wide) - predict(whole, wide)).abs().max() > 1e-3  # windows count pixels


def test_sizes_that_are_no_square(cfg):
    cfg.model.test_cfg = dict(mode='whole')
    assert predict(build(cfg), images(64, 144)).shape == (11, 64, 144)


def test_blocks_of_each_depth():
    assert [feature_blocks(depth) for depth in (4, 12, 24, 28)] == [
        (0, 1, 2, 3), (3, 5, 7, 11), (7, 11, 15, 23), (6, 13, 20, 27),
    ]  # fmt: skip


def test_mmseg_is_imported_only_by_who_uses_it():
    code = 'import sys, usp_mm.models, usp_mm.engine; from mmpretrain.registry import MODELS; assert MODELS.get("USPViT")\n'
    code += 'print([name for name in sys.modules if name == "mmseg" or name == "usp_mm.segmentation"])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.splitlines()[-1] == '[]'
