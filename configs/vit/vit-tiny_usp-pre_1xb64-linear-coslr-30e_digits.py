"""Linear probe on handwritten digits, the demo: Table 12's head on cached latents, AdamW in place of LARS for the short run.

python tools/train.py configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    '../_base_/models/usp_vit-base_linear.py',
    '../_base_/datasets/digits_latents_probe.py',
    '../_base_/schedules/linear_lars_coslr_90e.py',
    '../_base_/linear_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='tiny', path='work_dirs/quickstart/vae'), posterior='mode'),
    backbone=dict(arch='tiny', img_size=64, frozen_stages=4),
    head=dict(num_classes=10),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(_delete_=True, type='AdamW', lr=1e-2, weight_decay=0.0))
train_cfg = dict(max_epochs=30)
default_hooks = dict(logger=dict(interval=23), checkpoint=dict(interval=30))
auto_scale_lr = dict(base_batch_size=64)
