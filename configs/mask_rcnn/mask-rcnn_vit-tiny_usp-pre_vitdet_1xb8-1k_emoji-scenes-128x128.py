"""Mask R-CNN on scenes of emoji, the demo; its tokens are 8 pixels wide, so the maps have strides 2 to 32.

python tools/train.py configs/mask_rcnn/mask-rcnn_vit-tiny_usp-pre_vitdet_1xb8-1k_emoji-scenes-128x128.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    '../_base_/models/mask-rcnn_usp_vit-base.py',
    '../_base_/datasets/emoji_scenes.py',
    '../_base_/schedules/vitdet_adamw_step_184k.py',
    '../_base_/mask-rcnn_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    backbone=dict(arch='tiny', vae=dict(name='laptop', path='work_dirs/emoji-vae'), img_size=128, drop_path_rate=0.0),
    neck=dict(out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(strides=[2, 4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32, featmap_strides=[2, 4, 8, 16]),
        bbox_head=dict(in_channels=32, conv_out_channels=32, fc_out_channels=128, num_classes=8),
        mask_roi_extractor=dict(out_channels=32, featmap_strides=[2, 4, 8, 16]),
        mask_head=dict(in_channels=32, conv_out_channels=32, num_classes=8),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=100, max_per_img=50), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, begin=0, milestones=[800, 950], gamma=0.1),
]
train_cfg = dict(max_iters=1_000, val_interval=250)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=1_000))
auto_scale_lr = dict(base_batch_size=8)
