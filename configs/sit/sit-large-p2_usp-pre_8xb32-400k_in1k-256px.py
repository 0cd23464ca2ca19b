"""SiT-L/2 from USP weights.

bash tools/dist_train.sh configs/sit/sit-large-p2_usp-pre_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-large_64xb64-amp-coslr-1600e_in1k-latents
"""

_base_ = './sit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(arch='large'))
