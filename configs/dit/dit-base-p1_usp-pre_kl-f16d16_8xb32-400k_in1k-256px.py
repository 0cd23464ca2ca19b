"""DiT-B/1 from USP weights on KL-16 latents.

bash tools/dist_train.sh configs/dit/dit-base-p1_usp-pre_kl-f16d16_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(data_preprocessor=dict(vae=dict(name='kl-f16d16', path='pretrained/kl16.ckpt')))
