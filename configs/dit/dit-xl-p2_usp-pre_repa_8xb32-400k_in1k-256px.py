"""DiT-XL/2 from USP weights with REPA.

bash tools/dist_train.sh configs/dit/dit-xl-p2_usp-pre_repa_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './dit-xl-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(repa=dict(teacher=dict(name='dinov2-b', path=None), depth=8))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
