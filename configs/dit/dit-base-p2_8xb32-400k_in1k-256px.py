"""DiT-B/2 from scratch, plain (no affine norms).

bash tools/dist_train.sh configs/dit/dit-base-p2_8xb32-400k_in1k-256px.py 8
Paper: FID 42.62, IS 33.67.
"""

_base_ = [
    '../_base_/models/dit-base-p2.py',
    '../_base_/datasets/in1k_gen_256px.py',
    '../_base_/schedules/gen_adamw_400k.py',
    '../_base_/gen_runtime.py',
]

model = dict(denoiser=dict(norm_affine=False))
