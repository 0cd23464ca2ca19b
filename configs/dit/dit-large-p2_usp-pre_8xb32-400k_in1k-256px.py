"""DiT-L/2 from USP weights.

bash tools/dist_train.sh configs/dit/dit-large-p2_usp-pre_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 16.23, IS 76.19 after 800 epochs of pretraining; FID 15.04, IS 81.14 after 1600.
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(arch='large'))
