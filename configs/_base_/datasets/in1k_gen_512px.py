_base_ = './in1k_gen_256px.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='ADMCenterCrop', size=512),
            dict(type='RandomFlip', prob=0.5),
            dict(type='mmpretrain.PackInputs'),
        ]
    )
)
val_evaluator = dict(metrics=dict(reference='data/VIRTUAL_imagenet512.npz'))
test_evaluator = val_evaluator
