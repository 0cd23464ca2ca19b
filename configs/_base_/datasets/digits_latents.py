# scikit-learn's handwritten digits at 64x64, cached by the quickstart
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='collate_latents'),
    dataset=dict(type='LatentCacheDataset', data_root='work_dirs/quickstart/latents/train', flip=False),
)
