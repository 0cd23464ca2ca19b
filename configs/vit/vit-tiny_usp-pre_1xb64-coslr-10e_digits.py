"""Fine-tuning on handwritten digits, the demo, on cached latents.

python tools/train.py configs/vit/vit-tiny_usp-pre_1xb64-coslr-10e_digits.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    '../_base_/models/usp_vit-base_finetune.py',
    '../_base_/datasets/digits_latents_probe.py',
    '../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='tiny', path='work_dirs/quickstart/vae'), posterior='mode', batch_augments=None),
    backbone=dict(arch='tiny', img_size=64, drop_path_rate=0.0),
    head=dict(num_classes=10),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, eta_min_ratio=1e-3, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
default_hooks = dict(logger=dict(interval=23), checkpoint=dict(interval=10))
auto_scale_lr = dict(base_batch_size=64)
