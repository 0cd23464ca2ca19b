# Table 13: base lr 1e-3 for a batch of 256, 4e-3 at 1024; decays by 0.75 a layer towards the input; 1-D parameters and
# the class token have no weight decay. A VAE that is trained too has the official group: the whole rate, all of it decayed.
# The floor is that of MAE's recipe, 1e-6.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        flat_decay_mult=0.0,
        custom_keys={'cls_token': dict(decay_mult=0.0), 'vae_encoder': dict(decay_mult=1.0)},
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, eta_min_ratio=2.5e-4, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
