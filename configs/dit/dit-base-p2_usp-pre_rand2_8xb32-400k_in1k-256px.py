"""DiT-B/2 from USP weights, the last 2 of 12 blocks random (Table 8g).

bash tools/dist_train.sh configs/dit/dit-base-p2_usp-pre_rand2_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 29.63, IS 46.82 (all blocks: 28.26, 48.92).
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(init_cfg=dict(keep_layers=10)))
