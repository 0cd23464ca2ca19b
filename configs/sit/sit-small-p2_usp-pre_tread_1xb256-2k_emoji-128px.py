"""SiT on emoji of 128 pixels from USP weights with TREAD's routed tokens, for one GPU: an arm of the study in docs/usp-start.md.

python tools/train.py configs/sit/sit-small-p2_usp-pre_tread_1xb256-2k_emoji-128px.py \
    --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './sit-small-p2_tread_1xb256-2k_emoji-128px.py'

model = dict(denoiser=dict(init_cfg=dict(type='USPPretrained', checkpoint=None)))
