# as at 224, with the same ratio of resize to crop
_base_ = './in1k_linear_224px.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='RandomResizedCrop', scale=256, backend='pillow', interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImage'),
            dict(type='ResizeEdge', scale=292, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=256),
            dict(type='PackInputs'),
        ]
    )
)
test_dataloader = val_dataloader
