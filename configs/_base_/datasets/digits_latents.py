# scikit-learn's handwritten digits at 64x64, cached by the quickstart
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='LatentCacheDataset', data_root='work_dirs/quickstart/latents/train', flip=False),
)
