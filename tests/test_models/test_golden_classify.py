"""Classification against timm's ViT with official weights: token features and logits (float32)."""

import numpy as np
import pytest
import torch
from golden import golden_weights, load
from mmpretrain.registry import MODELS

from usp_mm.checkpoints import from_official, to_official

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
    tables = load('pretrain_sdvae_c4s8_normpix')
    official = golden_weights({key: value.shape for key, value in to_official(model.state_dict()).items()})
    official['pos_embed'] = torch.from_numpy(tables['pos_embed'])
    model.load_state_dict(from_official(official), strict=True)

    golden = load(name)
    x = torch.from_numpy(golden['x'])
    np.testing.assert_allclose(model(x, mode='tensor').detach(), golden['logits'], rtol=0, atol=1e-5)
    model.backbone.out_type = 'raw'
    np.testing.assert_allclose(model.backbone(x)[-1].detach(), golden['features'], rtol=0, atol=1e-5)
