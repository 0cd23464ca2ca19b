"""Fine-tuning of USP ViT-B on KL-16 latents (Table 6).

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_kl-f16d16_8xb128-amp-coslr-100e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper: 83.2 (MAE 83.3).
"""

_base_ = './vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(data_preprocessor=dict(vae=dict(name='kl-f16d16', path='pretrained/kl16.ckpt')))
