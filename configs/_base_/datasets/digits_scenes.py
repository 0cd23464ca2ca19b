# the demo's scenes of digits, 128x128, made by tools/make_demo_data.py
_base_ = './ade20k_512x512.py'

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='DemoScenes',
        data_root='work_dirs/quickstart/data/ade20k',
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='LoadAnnotations'),
            dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='DemoScenes',
        data_root='work_dirs/quickstart/data/ade20k',
        pipeline=[
            dict(type='LoadImageFromFile', imdecode_backend='pillow'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
