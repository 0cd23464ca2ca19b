"""DiT-B/2 from USP weights without the norms' scale and shift (Table 8b).

bash tools/dist_train.sh configs/dit/dit-base-p2_usp-pre_noaffine_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 40.41, 33.18, 30.27, 28.76 after 100K, 200K, 300K, 400K steps (with: 38.44, 32.15, 29.89, 28.26).
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(norm_affine=False, init_cfg=dict(load_norms=False)))
