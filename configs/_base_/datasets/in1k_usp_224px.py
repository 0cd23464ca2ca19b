# the official code's online augmentation; any folder of class folders serves as data_root
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    prefetch_factor=4,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root='data/imagenet',
        data_prefix='train',
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
