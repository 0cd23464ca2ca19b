"""DiT-B/2 from USP weights, 1M steps.

bash tools/dist_train.sh configs/dit/dit-base-p2_usp-pre_8xb32-1000k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-base_64xb64-amp-coslr-800e_in1k-latents
Paper: FID 24.18, IS 58.05.
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

train_cfg = dict(max_iters=1_000_000)
