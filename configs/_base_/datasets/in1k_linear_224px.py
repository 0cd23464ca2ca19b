# Table 12: MAE's RandomResizedCrop (arXiv 2111.06377, its util/crop.py: one draw, cut to the frame) and flip; evaluation
# resizes to 256 and crops 224, bicubic
_base_ = './in1k_usp_224px.py'

train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='ToPIL', to_rgb=True),
            dict(type='MAERandomResizedCrop', size=224, interpolation=3),  # bicubic
            dict(type='ToNumpy', to_bgr=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    prefetch_factor=4,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root='data/imagenet',
        data_prefix='val',
        pipeline=[
            dict(type='LoadImage'),
            dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
