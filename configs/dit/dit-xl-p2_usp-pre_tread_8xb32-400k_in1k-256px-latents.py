"""DiT-XL/2 from USP weights with TREAD's routed tokens, from cached latents.

bash tools/dist_train.sh configs/dit/dit-xl-p2_usp-pre_tread_8xb32-400k_in1k-256px-latents.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-xl_64xb64-amp-coslr-800e_in1k-latents
"""

_base_ = './dit-xl-p2_usp-pre_8xb32-400k_in1k-256px-latents.py'

model = dict(denoiser=dict(route=dict(keep=0.5, start=2, end=-4)))
