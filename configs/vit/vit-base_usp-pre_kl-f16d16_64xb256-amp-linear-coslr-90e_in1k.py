"""Linear probe of USP ViT-B on KL-16 latents (Tables 6, 8f).

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_kl-f16d16_64xb256-amp-linear-coslr-90e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (on 8 nodes)
Paper: 66.9 (MAE 65.1).
"""

_base_ = './vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'

model = dict(data_preprocessor=dict(vae=dict(name='kl-f16d16', path='pretrained/kl16.ckpt')))
