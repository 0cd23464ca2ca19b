# as at 224, with the same ratio of resize to crop
_base_ = './in1k_linear_256px.py'

train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='RandomResizedCrop', scale=256, backend='pillow', interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(
                type='RandAugment',
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=9,
                magnitude_std=0.5,
                hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
            ),
            dict(type='PackInputs'),
        ]
    ),
)
