"""Classification against timm's ViT with official weights: token features and logits (float32)."""

import numpy as np
import pytest
import torch
from helpers.golden import load, official_weights
from mmpretrain.registry import MODELS

from usp_mm.checkpoints import from_official

ARCH = dict(embed_dims=48, depth=2, num_heads=3)


@pytest.mark.parametrize(
    ('name', 'out_type', 'final_norm'), [('classify_token', 'cls_token', True), ('classify_avg', 'avg_featmap', False)]
)
def test_features_and_logits(name, out_type, final_norm):
    model = MODELS.build(
        dict(
            type='USPClassifier',
            data_preprocessor=dict(type='LatentDataPreprocessor', vae='sd-f8d4', load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=64, out_type=out_type, final_norm=final_norm),
            head=dict(type='VisionTransformerClsHead', num_classes=10),
        )
    )
    model.load_state_dict(from_official(official_weights(name.replace('classify_', 'timm-'))), strict=True)

    golden = load(name)
    x = torch.from_numpy(golden['x'])
    np.testing.assert_allclose(model(x, mode='tensor').detach(), golden['logits'], rtol=0, atol=1e-5)
    model.backbone.out_type = 'raw'
    np.testing.assert_allclose(model.backbone(x)[-1].detach(), golden['features'], rtol=0, atol=1e-5)
