"""SiT-XL/2 from scratch with REPA: tokens after block 8 are aligned with DINOv2-B.

bash tools/dist_train.sh configs/sit/sit-xl-p2_repa_8xb32-400k_in1k-256px.py 8
Paper: FID 7.9, IS 122.6.
"""

_base_ = './sit-xl-p2_8xb32-400k_in1k-256px.py'

model = dict(repa=dict(teacher=dict(name='dinov2-b', path=None), depth=8))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
