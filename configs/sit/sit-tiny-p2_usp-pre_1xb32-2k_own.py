"""SiT on own pictures from USP weights: `usp train FOLDER` sets the VAE, the classes, the sizes and the number of steps.

python tools/train.py configs/sit/sit-tiny-p2_usp-pre_1xb32-2k_own.py \
    --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT  (after `usp train FOLDER --out work_dirs/own --only vae,cache`)
"""

_base_ = [
    '../_base_/models/sit-base-p2.py',
    '../_base_/datasets/own_gen_latents.py',
    '../_base_/schedules/own_gen_adamw_2k.py',
    '../_base_/own_gen_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='laptop', path='work_dirs/own/vae'), posterior='mode'),
    denoiser=dict(arch='tiny', img_size=64, num_classes=10, init_cfg=dict(type='USPPretrained', checkpoint=None)),
    sampler=dict(num_steps=50),
    guidance=dict(channels=None),
    ema=dict(momentum=5e-3),  # the run is too short for 1e-4
)
