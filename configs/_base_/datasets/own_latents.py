# a folder of own pictures, cached by `usp train FOLDER`
_base_ = './in1k_latents.py'

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='work_dirs/own/latents/train'),
)
