# the paper's augmentation, a flip alone, from a cache written by tools/cache_latents.py
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    prefetch_factor=4,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='collate_latents'),
    dataset=dict(type='LatentCacheDataset', data_root='data/imagenet_latents/sd-f8d4_224px', flip=True),
)
