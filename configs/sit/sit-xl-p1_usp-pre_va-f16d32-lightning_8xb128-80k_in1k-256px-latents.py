"""SiT-XL/1 with LightningDiT's block on VA-VAE latents from USP weights, 64 epochs of LightningDiT's recipe.

bash tools/dist_train.sh configs/sit/sit-xl-p1_usp-pre_va-f16d32-lightning_8xb128-80k_in1k-256px-latents.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-xl_va-f16d32-lightning_64xb64-amp-coslr-1600e_in1k-256px-latents
Paper (Table 3): FID 4.2, IS 144.
"""

_base_ = './sit-xl-p1_va-f16d32-lightning_8xb128-80k_in1k-256px-latents.py'

model = dict(denoiser=dict(init_cfg=dict(type='USPPretrained', checkpoint=None)))
