"""Layer-wise decay and learning rates against the official code's (through mmpretrain and mmengine)."""

import json

import pytest
import torch
from golden import GOLDEN
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS, PARAM_SCHEDULERS

GOLD = json.loads((GOLDEN / 'optim.json').read_text())
SCHEDULE = 'configs/_base_/schedules/usp_adamw_coslr_800e.py'


def test_layer_decay_scales_and_weight_decay():
    """Table 13's recipe; timm's ViT exempts the class token from decay, and so does fine-tuning."""
    model = MODELS.build(
        dict(
            type='USPClassifier',
            data_preprocessor=dict(type='LatentDataPreprocessor', vae='sd-f8d4', load_vae=False),
            backbone=dict(
                type='USPViT', arch=dict(embed_dims=48, num_heads=3), img_size=64, out_type='avg_featmap', final_norm=False
            ),
            head=dict(type='VisionTransformerClsHead', num_classes=10),
        )
    )
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
            constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.75, flat_decay_mult=0.0, custom_keys={'cls_token': dict(decay_mult=0.0)}),
        ),
    )
    ours = {}
    for group in wrapper.optimizer.param_groups:
        name = group['param_name'].removeprefix('backbone.').replace('head.layers.head.', 'head.')
        ours[name] = [group['lr_scale'], group['weight_decay']]
    expected = GOLD['layer_decay_075_depth12']
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        assert ours[name] == pytest.approx(values, abs=1e-7), name


def test_learning_rate_at_fractional_epochs():
    """Through the schedule of the configs. MMEngine's warm-up reaches the peak one iteration earlier: 1 / 20,000 here."""
    cfg = Config.fromfile(SCHEDULE)
    per_epoch = 500
    expected = {round(epoch * per_epoch): lr for epoch, lr in GOLD['lr_800ep_warmup40_peak2p4e3']}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        scheduler = dict(scheduler, optimizer=optimizer, epoch_length=per_epoch)
        scheduler.setdefault('end', cfg.train_cfg.max_epochs)
        cls = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        scheduler.pop('convert_to_iter_based')
        schedulers.append(cls.build_iter_from_epoch(**scheduler))
    found = {}
    for iteration in range(max(expected) + 1):
        if iteration in expected:
            found[iteration] = optimizer.param_groups[0]['lr']
        for scheduler in schedulers:
            scheduler.step()
    assert found == pytest.approx(expected, rel=6e-5, abs=1e-11)
