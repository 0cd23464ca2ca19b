# Table 13: average pooling with a fresh norm, drop path, label smoothing, mixup or cutmix of each batch's latents
model = dict(
    type='USPClassifier',
    data_preprocessor=dict(
        type='LatentDataPreprocessor',
        vae=dict(name='sd-f8d4', path=None),
        mix_space='latent',
        batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
    ),
    backbone=dict(
        type='USPViT',
        arch='base',
        img_size=224,
        out_type='avg_featmap',
        drop_path_rate=0.1,
        init_cfg=dict(type='USPPretrained', checkpoint=None),
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)
