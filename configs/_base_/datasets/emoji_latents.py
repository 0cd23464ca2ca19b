# emoji of 128 pixels, cached by dev/start_study.py
_base_ = './in1k_latents.py'

train_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='work_dirs/start-study/emoji-128px/latents/train'),
)
