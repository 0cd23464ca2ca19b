"""DiT-B/2 from a pixel MAE with the norms' scale and shift, its PatchConv left random (Table 8a).

bash tools/dist_train.sh configs/dit/dit-base-p2_mae-pre_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 43.55, whether the norms' scale and shift are used or not (USP 28.26, scratch 42.62).
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(init_cfg=dict(load_patch_embed=False)))
