# as at 224; evaluation as in the linear probe at 256
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
            # the official --reprob 0.25 --remode pixel --recount 1; the mean and std are those of the data preprocessor
            dict(type='PixelRandomErasing', erase_prob=0.25, count=1, mean=[127.5] * 3, std=[127.5] * 3),
            dict(type='PackInputs'),
        ]
    ),
)
