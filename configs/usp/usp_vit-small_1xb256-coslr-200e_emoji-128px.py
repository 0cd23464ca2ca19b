"""USP on emoji of 128 pixels, for one GPU: the pretraining of the study in docs/usp-start.md.

python tools/train.py configs/usp/usp_vit-small_1xb256-coslr-200e_emoji-128px.py  (after dev/start_study.py has made the data)
"""

_base_ = [
    '../_base_/models/usp_vit-base.py',
    '../_base_/datasets/emoji_latents.py',
    '../_base_/schedules/emoji_adamw_coslr_200e.py',
    '../_base_/own_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='laptop', path='work_dirs/start-study/emoji-128px/vae'), posterior='mode'),
    backbone=dict(arch='small', img_size=128),
)
