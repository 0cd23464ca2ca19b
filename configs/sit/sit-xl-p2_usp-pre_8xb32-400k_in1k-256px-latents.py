"""SiT-XL/2 from USP weights, from cached latents.

bash tools/dist_train.sh configs/sit/sit-xl-p2_usp-pre_8xb32-400k_in1k-256px-latents.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-xl_64xb64-amp-coslr-1600e_in1k-latents
Paper: FID 7.38, IS 127.96 after 1600 epochs of pretraining.
"""

_base_ = './sit-base-p2_usp-pre_8xb32-400k_in1k-256px-latents.py'

model = dict(denoiser=dict(arch='xl'))
