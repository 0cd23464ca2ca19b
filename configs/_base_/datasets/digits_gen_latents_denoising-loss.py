# validation by the denoising loss of the held-out digits, in seconds and without sampling; tools/test.py still scores samples
_base_ = './digits_gen_latents.py'

val_dataloader = dict(
    _delete_=True,
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='collate_latents'),
    dataset=dict(type='LatentCacheDataset', data_root='work_dirs/quickstart/latents/val', flip=False),
)
val_evaluator = dict(metrics=dict(_delete_=True, type='DenoisingLoss', num_times=20))
