model = dict(
    type='USP',
    data_preprocessor=dict(type='LatentDataPreprocessor', vae=dict(name='sd-f8d4', path=None)),
    backbone=dict(type='USPViT', arch='base', img_size=224),
    neck=dict(type='USPDecoder'),
    head=dict(type='USPHead', norm_pix='patch'),
    mask_ratio=0.75,
)
