"""SiT-XL/2 from USP weights, 2M steps.

bash tools/dist_train.sh configs/sit/sit-xl-p2_usp-pre_8xb32-2000k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-xl_64xb64-amp-coslr-1600e_in1k-latents
Paper: FID 6.96, IS 141.48.
"""

_base_ = './sit-xl-p2_usp-pre_8xb32-400k_in1k-256px.py'

train_cfg = dict(max_iters=2_000_000)
