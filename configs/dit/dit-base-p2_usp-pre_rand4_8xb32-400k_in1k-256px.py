"""DiT-B/2 from USP weights, the last 4 of 12 blocks random (Table 8g).

bash tools/dist_train.sh configs/dit/dit-base-p2_usp-pre_rand4_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 32.88, IS 42.06 (all blocks: 28.26, 48.92).
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(init_cfg=dict(keep_layers=8)))
