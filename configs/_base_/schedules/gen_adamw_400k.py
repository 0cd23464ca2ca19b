# Table 14: a constant 1e-4 for a batch of 256, no weight decay
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0))
train_cfg = dict(type='PositionedIterTrainLoop', max_iters=400_000, val_interval=50_000)
val_cfg = dict(type='MultiValLoop')
test_cfg = dict(type='MultiTestLoop')
auto_scale_lr = dict(base_batch_size=256)
