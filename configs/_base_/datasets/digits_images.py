# scikit-learn's handwritten digits at 64x64, as images
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root='work_dirs/quickstart/data/imagenet',
        data_prefix='train',
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='RandomCrop', crop_size=64, padding=4),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root='work_dirs/quickstart/data/imagenet',
        data_prefix='val',
        pipeline=[dict(type='LoadImage'), dict(type='PackInputs')],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
