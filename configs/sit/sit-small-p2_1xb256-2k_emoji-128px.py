"""SiT on emoji of 128 pixels from scratch, for one GPU: an arm of the study in docs/usp-start.md.

python tools/train.py configs/sit/sit-small-p2_1xb256-2k_emoji-128px.py  (after dev/start_study.py has made the data)
"""

_base_ = [
    '../_base_/models/sit-base-p2.py',
    '../_base_/datasets/emoji_gen_latents.py',
    '../_base_/schedules/emoji_gen_adamw_2k.py',
    '../_base_/own_gen_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='laptop', path='work_dirs/start-study/emoji-128px/vae'), posterior='mode'),
    denoiser=dict(arch='small', img_size=128, num_classes=8),
    sampler=dict(num_steps=50),
    guidance=dict(channels=None),
    ema=dict(momentum=5e-3),  # the run is too short for 1e-4
)
