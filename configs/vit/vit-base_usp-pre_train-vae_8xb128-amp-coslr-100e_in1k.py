"""Fine-tuning of USP ViT-B together with the VAE's encoder (section 3.3.1), mixup and cutmix of its latents.

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_train-vae_8xb128-amp-coslr-100e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper: 81.3.
"""

_base_ = './vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(backbone=dict(train_vae=True))
