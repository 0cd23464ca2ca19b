# ViTDet (arXiv 2203.16527, appendix A.2) and its official config mask_rcnn_vitdet_b_100ep in detectron2: batch 64, lr 1e-4, weight
# decay 0.1 except for norms, decay by 0.7 a layer towards the input, 184,375 iterations (100 epochs of 118,000 images), a tenth of
# the rate after 163,889 and after 177,546, 250 iterations of warm-up.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, begin=0, milestones=[163_889, 177_546], gamma=0.1),
]
train_cfg = dict(type='PositionedIterTrainLoop', max_iters=184_375, val_interval=9_220)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=64)
