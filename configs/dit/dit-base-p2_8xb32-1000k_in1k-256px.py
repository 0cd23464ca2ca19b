"""DiT-B/2 from scratch, 1M steps.

bash tools/dist_train.sh configs/dit/dit-base-p2_8xb32-1000k_in1k-256px.py 8
Paper: FID 31.26, IS 47.35.
"""

_base_ = './dit-base-p2_8xb32-400k_in1k-256px.py'

train_cfg = dict(max_iters=1_000_000)
