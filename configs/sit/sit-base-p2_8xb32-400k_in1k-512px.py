"""SiT-B/2 at 512x512 from scratch, plain (no affine norms).

bash tools/dist_train.sh configs/sit/sit-base-p2_8xb32-400k_in1k-512px.py 8
Paper: FID 42.80, IS 37.37.
"""

_base_ = [
    '../_base_/models/sit-base-p2.py',
    '../_base_/datasets/in1k_gen_512px.py',
    '../_base_/schedules/gen_adamw_400k.py',
    '../_base_/gen_runtime.py',
]

model = dict(denoiser=dict(img_size=512, norm_affine=False))
