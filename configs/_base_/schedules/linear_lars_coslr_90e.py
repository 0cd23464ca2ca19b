# Table 12: base lr 0.1 for a batch of 256, 6.4 at 16384; under autocast, as MAE's and USP's main_linprobe
optim_wrapper = dict(type='AutocastOptimWrapper', optimizer=dict(type='MAELARS', lr=6.4, momentum=0.9, weight_decay=0.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=16384)
