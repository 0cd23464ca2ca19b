# the same crops and flips, from a cache written by tools/cache_latents.py
_base_ = './in1k_gen_256px.py'

train_dataloader = dict(
    num_workers=2,
    collate_fn=dict(type='collate_latents'),
    dataset=dict(_delete_=True, type='LatentCacheDataset', data_root='data/imagenet_latents/sd-f8d4_256px', flip=True),
)
