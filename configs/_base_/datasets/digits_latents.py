# scikit-learn's handwritten digits at 64x64, cached by the quickstart
_base_ = './in1k_latents.py'

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='work_dirs/quickstart/latents/train', flip=False),
)
