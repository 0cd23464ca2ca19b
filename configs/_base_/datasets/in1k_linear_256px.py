# as at 224, but evaluation resizes to the crop's side, as the official code does above 224
_base_ = './in1k_linear_224px.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='ToPIL', to_rgb=True),
            dict(type='MAERandomResizedCrop', size=256, interpolation=3),  # bicubic
            dict(type='ToNumpy', to_bgr=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImage'),
            dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=256),
            dict(type='PackInputs'),
        ]
    )
)
test_dataloader = val_dataloader
