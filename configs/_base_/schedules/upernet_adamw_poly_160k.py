# section 3.3.2: batch 16, lr 1e-4, 160,000 iterations, linear decay after mmseg's warm-up; 1-D parameters are not decayed
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1_500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1_500),
]
train_cfg = dict(type='PositionedIterTrainLoop', max_iters=160_000, val_interval=16_000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=16)
