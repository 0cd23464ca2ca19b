"""DiT-XL/2 from USP weights, 1.2M steps, sampled with classifier-free guidance (DiT's own scale).

bash tools/dist_test.sh configs/dit/dit-xl-p2_usp-pre_cfg_8xb32-1200k_in1k-256px.py CHECKPOINT 8  (of dit-xl-p2_usp-pre_8xb32-1200k_in1k-256px)
From: usp_vit-xl_64xb64-amp-coslr-1600e_in1k-latents
Paper: FID 2.33, IS 267.07.
"""

_base_ = './dit-xl-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(guidance=dict(scale=1.5))
train_cfg = dict(max_iters=1_200_000)
