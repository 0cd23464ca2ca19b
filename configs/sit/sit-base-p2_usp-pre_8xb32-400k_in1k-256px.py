"""SiT-B/2 from USP weights.

bash tools/dist_train.sh configs/sit/sit-base-p2_usp-pre_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-base_64xb64-amp-coslr-1600e_in1k-latents
Paper: FID 22.10, IS 61.20 after 1600 epochs of pretraining.
"""

_base_ = [
    '../_base_/models/sit-base-p2.py',
    '../_base_/datasets/in1k_gen_256px.py',
    '../_base_/schedules/gen_adamw_400k.py',
    '../_base_/gen_runtime.py',
]

model = dict(denoiser=dict(init_cfg=dict(type='USPPretrained', checkpoint=None)))
