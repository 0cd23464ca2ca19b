"""USP on handwritten digits, the demo: a minute or two on two CPU cores.

python tools/train.py configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py  (after tools/quickstart.sh has made the data)
"""

_base_ = ['../_base_/models/usp_vit-base.py', '../_base_/datasets/digits_latents.py', '../_base_/digits_runtime.py']

model = dict(
    data_preprocessor=dict(vae='tiny', vae_path='work_dirs/quickstart/vae', posterior='mode'),
    backbone=dict(arch='tiny', img_size=64),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=12, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=12, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=120)
auto_scale_lr = dict(base_batch_size=64)
