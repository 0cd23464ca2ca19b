"""Encoders that do not fit, and files with more sets of weights than an encoder has."""

import pytest
import torch
from helpers.checkpoint_files import official

from usp_mm.checkpoints import convert


def test_encoders_that_do_not_fit(tmp_path):
    weights = official('timm')
    torch.save(weights | {'pos_embed': torch.zeros(1, 16, 48)}, tmp_path / 'no_class_token.pth')
    with pytest.raises(ValueError, match=r'pos_embed \[1, 16, 48\] instead of \[1, 17, 48\]'):
        convert(tmp_path / 'no_class_token.pth', tmp_path / 'out.pth')
    torch.save(weights, tmp_path / 'vit.pth')
    with pytest.raises(ValueError, match='fold_norms: timm is an encoder, which has no adaLN'):
        convert(tmp_path / 'vit.pth', tmp_path / 'out.pth', fold_norms=True)


def test_another_backbone_is_not_ours(tmp_path):
    torch.save({'backbone.conv1.weight': torch.zeros(64, 3, 7, 7), 'head.fc.bias': torch.zeros(9)}, tmp_path / 'resnet.pth')
    with pytest.raises(ValueError, match=r'not a checkpoint of this package \(usp_mm\): 11 missing: cls_token, pos_embed, '):
        convert(tmp_path / 'resnet.pth', tmp_path / 'out.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['resnet.pth']


def test_an_encoder_of_two_sets_and_a_third(tmp_path):
    weights = official('timm')
    half = {name: 0.5 * value for name, value in weights.items()}
    torch.save(dict(model=weights, ema=half, model_ema=weights), tmp_path / 'both.pth')
    report = convert(tmp_path / 'both.pth', tmp_path / 'ours.pth')
    assert torch.equal(
        torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']['backbone.cls_token'], half['cls_token']
    )
    assert report.dropped['model: cls_token'] == 'weights=ema'
    assert report.dropped['model_ema'].startswith('another set of weights')
