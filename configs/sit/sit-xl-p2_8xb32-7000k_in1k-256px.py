"""SiT-XL/2 from scratch, 7M steps: what USP's 150K are compared with.

bash tools/dist_train.sh configs/sit/sit-xl-p2_8xb32-7000k_in1k-256px.py 8
"""

_base_ = './sit-xl-p2_8xb32-400k_in1k-256px.py'

train_cfg = dict(max_iters=7_000_000, val_interval=500_000)
