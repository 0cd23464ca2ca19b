"""DiT-L/2 from scratch.

bash tools/dist_train.sh configs/dit/dit-large-p2_8xb32-400k_in1k-256px.py 8
Paper: FID 23.03, IS 60.13.
"""

_base_ = './dit-base-p2_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(arch='large'))
