_base_ = './in1k_usp_224px.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='RandomResizedCrop', scale=256, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]
    )
)
