"""SiT on handwritten digits from scratch, validated every 50 steps by the denoising loss of held-out latents.

python tools/train.py configs/sit/sit-tiny-p2_denoising-loss_1xb64-2k_digits.py  (on the data of docs/demo-data.md#digits)
"""

_base_ = [
    '../_base_/models/sit-base-p2.py',
    '../_base_/datasets/digits_gen_latents_denoising-loss.py',
    '../_base_/schedules/digits_gen_adamw_2k.py',
    '../_base_/digits_gen_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='tiny', path='work_dirs/quickstart/vae'), posterior='mode'),
    denoiser=dict(arch='tiny', img_size=64, num_classes=10),
    sampler=dict(num_steps=20),
    ema=dict(momentum=1e-2),  # the run is too short for 1e-4
)
train_cfg = dict(val_interval=50)
