"""Linear probe on handwritten digits, the demo: the head and schedule of Table 12, on cached latents.

python tools/train.py configs/vit/vit-tiny_usp-pre_1xb128-linear-coslr-20e_digits.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    '../_base_/models/usp_vit-base_linear.py',
    '../_base_/datasets/digits_latents_probe.py',
    '../_base_/schedules/linear_lars_coslr_90e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae='tiny', vae_path='work_dirs/quickstart/vae'),
    backbone=dict(arch='tiny', img_size=64, frozen_stages=6),
    head=dict(num_classes=10),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=0.05))
train_cfg = dict(max_epochs=20)
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=20))
auto_scale_lr = dict(base_batch_size=128)
