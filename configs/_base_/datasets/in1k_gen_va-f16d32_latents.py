_base_ = './in1k_gen_latents.py'

train_dataloader = dict(batch_size=128, dataset=dict(data_root='data/imagenet_latents/va-f16d32_256px'))
