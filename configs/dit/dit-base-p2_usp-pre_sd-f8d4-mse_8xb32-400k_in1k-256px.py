"""DiT-B/2 from USP weights on the latents of sd-vae-ft-mse.

bash tools/dist_train.sh configs/dit/dit-base-p2_usp-pre_sd-f8d4-mse_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(data_preprocessor=dict(vae=dict(name='sd-f8d4-mse')))
