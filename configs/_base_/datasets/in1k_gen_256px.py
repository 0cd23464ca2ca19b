# Table 14: ADM's centre crop and a flip; 50,000 samples of uniformly random classes against ADM's reference batch
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    prefetch_factor=4,
    pin_memory=True,
    sampler=dict(type='EpochInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root='data/imagenet',
        data_prefix='train',
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='ADMCenterCrop', size=256),
            dict(type='RandomFlip', prob=0.5),
            dict(type='mmpretrain.PackInputs'),  # mmagic has a PackInputs of its own
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='SampleRequests', num_samples=50_000, num_classes=1000, label_mode='random', seed=0),
)
val_evaluator = dict(
    type='Evaluator',
    metrics=dict(type='ADMMetrics', reference='data/VIRTUAL_imagenet256_labeled.npz', inception=None),
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
