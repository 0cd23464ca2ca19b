"""SiT on handwritten digits from USP weights with TREAD's routed tokens, the demo.

python tools/train.py configs/sit/sit-tiny-p2_usp-pre_tread_1xb64-2k_digits.py \
    --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './sit-tiny-p2_tread_1xb64-2k_digits.py'

model = dict(denoiser=dict(init_cfg=dict(type='USPPretrained', checkpoint=None)))
