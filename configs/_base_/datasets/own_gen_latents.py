# a folder of own pictures, cached by `usp train FOLDER`; validation compares small copies of samples with those of the pictures
_base_ = './in1k_gen_latents.py'

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='work_dirs/own/latents/train'),
)
val_dataloader = dict(batch_size=100, dataset=dict(num_samples=500, num_classes=10, label_mode='balanced'))
val_evaluator = dict(
    metrics=dict(
        _delete_=True,
        type='FeatureMetrics',
        extractor=dict(type='PixelFeatures', size=8),
        reference='work_dirs/own/pictures/train',
    )
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
