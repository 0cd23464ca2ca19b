"""A small classifier of handwritten digits: its features judge the samples of the demo's generators.

python tools/train.py configs/features/resnet18-w16_1xb64-coslr-8e_digits.py  (on the data of docs/demo-data.md#digits)
"""

_base_ = [
    '../_base_/datasets/digits_images.py',
    '../_base_/schedules/features_adamw_coslr_8e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128, topk=(1,)),
)
default_hooks = dict(logger=dict(interval=23), checkpoint=dict(interval=8))
