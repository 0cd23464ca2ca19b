"""SiT on emoji of 128 pixels from scratch with TREAD's routed tokens, for one GPU: an arm of the study in docs/usp-start.md.

python tools/train.py configs/sit/sit-small-p2_tread_1xb256-2k_emoji-128px.py
"""

_base_ = './sit-small-p2_1xb256-2k_emoji-128px.py'

model = dict(denoiser=dict(route=dict(keep=0.5, start=2, end=-4)))  # six of the twelve blocks
