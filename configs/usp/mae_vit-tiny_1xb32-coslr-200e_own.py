"""Pixel-space MAE on own pictures, with the encoder, the tokens and the steps of USP on them: its baseline.

python tools/train.py configs/usp/mae_vit-tiny_1xb32-coslr-200e_own.py  (after `usp train FOLDER --out work_dirs/own --only vae`)
"""

_base_ = './usp_vit-tiny_1xb32-coslr-200e_own.py'

model = dict(
    data_preprocessor=dict(vae=dict(_delete_=True, name='pixel')),
    backbone=dict(patch_size=8),  # as many tokens as the VAE's stride of 4 with patches of 2
)
train_dataloader = dict(
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        _delete_=True,
        type='ImageFolder',
        data_root='work_dirs/own/pictures',
        data_prefix='train',
        with_label=True,
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='ADMCenterCrop', size=64),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
default_hooks = dict(restoration=dict(composite='visible'))
