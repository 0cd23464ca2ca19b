"""DiT-B/2 from USP weights, residual gates biased to 1 (appendix A).

bash tools/dist_train.sh configs/dit/dit-base-p2_usp-pre_gate1_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(gate_bias=1.0))
