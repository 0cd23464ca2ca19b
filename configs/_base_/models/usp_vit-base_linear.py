model = dict(
    type='USPClassifier',
    data_preprocessor=dict(type='LatentDataPreprocessor', vae=dict(name='sd-f8d4', path=None)),
    backbone=dict(
        type='USPViT', arch='base', img_size=224, frozen_stages=12, init_cfg=dict(type='USPPretrained', checkpoint=None)
    ),
    neck=dict(type='ClsBatchNormNeck'),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)
