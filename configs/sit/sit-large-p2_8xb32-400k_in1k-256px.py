"""SiT-L/2 from scratch.

bash tools/dist_train.sh configs/sit/sit-large-p2_8xb32-400k_in1k-256px.py 8
"""

_base_ = './sit-base-p2_8xb32-400k_in1k-256px.py'

model = dict(denoiser=dict(arch='large'))
