"""SiT-XL/2 from USP weights with REPA, from cached latents and teacher tokens.

bash tools/dist_train.sh configs/sit/sit-xl-p2_usp-pre_repa_8xb32-400k_in1k-256px-latents.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-xl_64xb64-amp-coslr-1600e_in1k-latents
Paper: FID 6.26, IS 139.84.
"""

_base_ = './sit-xl-p2_usp-pre_8xb32-400k_in1k-256px-latents.py'

model = dict(repa=dict(teacher=dict(name='dinov2-b', path=None), depth=8))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
train_dataloader = dict(dataset=dict(teacher='dinov2-b'))
