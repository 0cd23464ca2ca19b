"""USP on handwritten digits, the demo: a minute or two on two CPU cores.

python tools/train.py configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py  (on the data of docs/demo-data.md#digits)
"""

_base_ = [
    '../_base_/models/usp_vit-base.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/digits_adamw_coslr_120e.py',
    '../_base_/digits_runtime.py',
]

model = dict(
    data_preprocessor=dict(vae=dict(name='tiny', path='work_dirs/quickstart/vae'), posterior='mode'),
    backbone=dict(arch='tiny', img_size=64),
)
