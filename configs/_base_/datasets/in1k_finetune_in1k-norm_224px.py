# for the pixel MAE, whose images have ImageNet's mean and std: the erased rectangle's noise has them too
_base_ = './in1k_finetune_224px.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
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
            dict(
                type='PixelRandomErasing',
                erase_prob=0.25,
                count=1,
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
            ),
            dict(type='PackInputs'),
        ]
    ),
)
