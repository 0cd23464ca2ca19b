# emoji of 128 pixels, cached by dev/start_study.py; validation by the denoising loss of held-out emoji, without sampling
_base_ = './in1k_gen_latents.py'

train_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='work_dirs/start-study/emoji-128px/latents/train'),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='collate_latents'),
    dataset=dict(type='LatentCacheDataset', data_root='work_dirs/start-study/emoji-128px/latents/val', flip=False),
)
val_evaluator = dict(metrics=dict(_delete_=True, type='DenoisingLoss', num_times=20))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
