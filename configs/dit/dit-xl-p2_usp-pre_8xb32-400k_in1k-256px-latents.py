"""DiT-XL/2 from USP weights, from cached latents.

bash tools/dist_train.sh configs/dit/dit-xl-p2_usp-pre_8xb32-400k_in1k-256px-latents.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 10.28, IS 104.36 after 800 epochs of pretraining; FID 9.73, IS 111.80 after 1600.
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px-latents.py'

model = dict(denoiser=dict(arch='xl'))
