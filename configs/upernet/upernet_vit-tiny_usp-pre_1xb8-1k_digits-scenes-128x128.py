"""UPerNet on scenes of handwritten digits, the demo.

python tools/train.py configs/upernet/upernet_vit-tiny_usp-pre_1xb8-1k_digits-scenes-128x128.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    '../_base_/models/upernet_usp_vit-base.py',
    '../_base_/datasets/digits_scenes.py',
    '../_base_/schedules/upernet_adamw_poly_160k.py',
    '../_base_/upernet_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch='tiny', vae=dict(name='tiny', path='work_dirs/quickstart/vae'), img_size=64, drop_path_rate=0.0),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(channels=64),
    norm_cfg=dict(type='BN'),
    test_cfg=dict(_delete_=True, mode='slide', crop_size=(64, 64), stride=(64, 64)),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=100),
]
train_cfg = dict(max_iters=1_000, val_interval=250)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=1_000), visualization=dict(draw=True, interval=10))
auto_scale_lr = dict(base_batch_size=8)
