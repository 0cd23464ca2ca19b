"""DiT-B/2 from USP weights, from cached latents.

bash tools/dist_train.sh configs/dit/dit-base-p2_usp-pre_8xb32-400k_in1k-256px-latents.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 28.26, IS 48.92 after 800 epochs of pretraining; FID 27.1, IS 50.46 after 1600.
"""

_base_ = [
    '../_base_/models/dit-base-p2.py',
    '../_base_/datasets/in1k_gen_latents.py',
    '../_base_/schedules/gen_adamw_400k.py',
    '../_base_/gen_runtime.py',
]

model = dict(denoiser=dict(init_cfg=dict(type='USPPretrained', checkpoint=None)))
