"""DiT-XL/2 from scratch, from cached latents.

bash tools/dist_train.sh configs/dit/dit-xl-p2_8xb32-400k_in1k-256px-latents.py 8
Paper: FID 19.94, IS 67.16.
"""

_base_ = './dit-base-p2_8xb32-400k_in1k-256px-latents.py'

model = dict(denoiser=dict(arch='xl'))
