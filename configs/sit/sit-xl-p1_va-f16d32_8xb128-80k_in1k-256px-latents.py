"""SiT-XL/1 on VA-VAE latents from scratch, 64 epochs of LightningDiT's recipe.

bash tools/dist_train.sh configs/sit/sit-xl-p1_va-f16d32_8xb128-80k_in1k-256px-latents.py 8
Paper (Table 3): FID 5.18, IS 132.4.
"""

_base_ = [
    '../_base_/models/sit-xl-p1_va-f16d32.py',
    '../_base_/datasets/in1k_gen_va-f16d32_latents.py',
    '../_base_/schedules/gen_adamw_80k.py',
    '../_base_/gen_runtime.py',
]

model = dict(denoiser=dict(norm_affine=False))
