"""USP on a folder of own pictures: `usp train FOLDER` sets the VAE, the sizes and the schedule for the folder and the machine.

python tools/train.py configs/usp/usp_vit-tiny_1xb32-coslr-200e_own.py  (after `usp train FOLDER --out work_dirs/own --only vae,cache`)
"""

_base_ = [
    '../_base_/models/usp_vit-base.py',
    '../_base_/datasets/own_latents.py',
    '../_base_/schedules/own_adamw_coslr_200e.py',
    '../_base_/own_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='laptop', path='work_dirs/own/vae'), posterior='mode'),
    backbone=dict(arch='tiny', img_size=64),
)
