"""SiT-B/2 at 512x512 from USP weights of 256x256 pretraining (16x16 positions, resized bilinearly to 32x32).

bash tools/dist_train.sh configs/sit/sit-base-p2_usp-pre_8xb32-400k_in1k-512px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-base_64xb64-amp-coslr-1600e_in1k-256px
Paper: FID 33.89, IS 45.03.
"""

_base_ = [
    '../_base_/models/sit-base-p2.py',
    '../_base_/datasets/in1k_gen_512px.py',
    '../_base_/schedules/gen_adamw_400k.py',
    '../_base_/gen_runtime.py',
]

model = dict(denoiser=dict(img_size=512, init_cfg=dict(type='USPPretrained', checkpoint=None, pos_interp='bilinear')))
