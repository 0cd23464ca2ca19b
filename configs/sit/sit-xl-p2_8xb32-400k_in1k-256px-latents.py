"""SiT-XL/2 from scratch, from cached latents.

bash tools/dist_train.sh configs/sit/sit-xl-p2_8xb32-400k_in1k-256px-latents.py 8
Paper: FID 16.97, IS 77.50.
"""

_base_ = './sit-base-p2_8xb32-400k_in1k-256px-latents.py'

model = dict(denoiser=dict(arch='xl'))
