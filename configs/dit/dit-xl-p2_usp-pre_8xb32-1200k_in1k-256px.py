"""DiT-XL/2 from USP weights, 1.2M steps.

bash tools/dist_train.sh configs/dit/dit-xl-p2_usp-pre_8xb32-1200k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-xl_64xb64-amp-coslr-1600e_in1k-latents (the cost of Table 5: usp_vit-xl_64xb64-amp-coslr-800e_in1k-latents)
Paper: FID 8.93, IS 123.10 (DiT-XL/2 from scratch, 7M steps: FID 9.62, IS 121.50).
"""

_base_ = './dit-xl-p2_usp-pre_8xb32-400k_in1k-256px.py'

train_cfg = dict(max_iters=1_200_000)
