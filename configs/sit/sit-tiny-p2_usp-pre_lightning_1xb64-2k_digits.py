"""LightningDiT's block, times, loss and sampler on handwritten digits from USP weights, the demo.

python tools/train.py configs/sit/sit-tiny-p2_usp-pre_lightning_1xb64-2k_digits.py \
    --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT  (of usp_vit-tiny_lightning_1xb64-coslr-120e_digits)
"""

_base_ = './sit-tiny-p2_lightning_1xb64-2k_digits.py'

model = dict(denoiser=dict(init_cfg=dict(type='USPPretrained', checkpoint=None)))
