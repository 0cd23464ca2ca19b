"""Fine-tuning of USP ViT-B, mixup and cutmix of images, before the VAE.

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_image-mix_8xb128-amp-coslr-100e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(data_preprocessor=dict(mix_space='image'))
