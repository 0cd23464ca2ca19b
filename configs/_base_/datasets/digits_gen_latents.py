# scikit-learn's handwritten digits at 64x64, cached by the quickstart; the features of a small classifier judge the samples
_base_ = './in1k_gen_latents.py'

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='work_dirs/quickstart/latents/train', flip=False),
)
val_dataloader = dict(batch_size=100, dataset=dict(num_samples=500, num_classes=10, label_mode='balanced'))
val_evaluator = dict(
    metrics=dict(
        _delete_=True,
        type='FeatureMetrics',
        extractor=dict(
            type='ClassifierFeatures',
            config='configs/features/resnet18-w16_1xb64-coslr-8e_digits.py',
            checkpoint='work_dirs/quickstart/features/epoch_8.pth',
        ),
        reference='work_dirs/quickstart/data/imagenet/train',
    )
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
