"""DiT-B/4 from scratch: a quarter of the tokens.

bash tools/dist_train.sh configs/dit/dit-base-p4_8xb32-400k_in1k-256px.py 8
"""

_base_ = './dit-base-p2_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(patch_size=4))
