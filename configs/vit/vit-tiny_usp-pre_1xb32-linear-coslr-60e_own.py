"""Linear probe on own pictures in class folders: Table 12's head on cached latents, AdamW in place of LARS for the short run.

python tools/train.py configs/vit/vit-tiny_usp-pre_1xb32-linear-coslr-60e_own.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (after `usp train FOLDER --out work_dirs/own --only vae,cache`)
"""

_base_ = [
    '../_base_/models/usp_vit-base_linear.py',
    '../_base_/datasets/own_latents_probe.py',
    '../_base_/schedules/linear_lars_coslr_90e.py',
    '../_base_/linear_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='laptop', path='work_dirs/own/vae'), posterior='mode'),
    backbone=dict(arch='tiny', img_size=64, frozen_stages=4),
    head=dict(num_classes=10),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(_delete_=True, type='AdamW', lr=1e-2, weight_decay=0.0))
train_cfg = dict(max_epochs=60, val_interval=3)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=20))
auto_scale_lr = dict(base_batch_size=32)
