"""Pixel-space MAE on handwritten digits, with the encoder, the tokens and the steps of the demo's USP: its baseline.

python tools/train.py configs/usp/mae_vit-tiny_1xb64-coslr-120e_digits.py  (on the data of docs/demo-data.md#digits)
"""

_base_ = './usp_vit-tiny_1xb64-coslr-120e_digits.py'

model = dict(data_preprocessor=dict(vae=dict(_delete_=True, name='pixel')))
train_dataloader = dict(
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        _delete_=True,
        type='ImageFolder',
        data_root='work_dirs/quickstart/data/imagenet',
        data_prefix='train',
        pipeline=[dict(type='SeedBySample'), dict(type='LoadImage'), dict(type='PackInputs')],
    ),
)
default_hooks = dict(restoration=dict(composite='visible'))
