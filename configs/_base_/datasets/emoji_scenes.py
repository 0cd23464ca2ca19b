# the demo's scenes of emoji, 128x128, made by tools/make_demo_data.py --kind scenes
_base_ = './coco_lsj_1024x1024.py'

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='DemoEmojiScenes',
        data_root='data/scenes',
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImageFromFile', imdecode_backend='pillow'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='DemoEmojiScenes',
        data_root='data/scenes',
        pipeline=[
            dict(type='LoadImageFromFile', imdecode_backend='pillow'),
            dict(type='Resize', scale=(128, 128), keep_ratio=True),  # masks are scaled back by its factor
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ],
    ),
)
val_evaluator = dict(ann_file='data/scenes/annotations/instances_val2017.json')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
