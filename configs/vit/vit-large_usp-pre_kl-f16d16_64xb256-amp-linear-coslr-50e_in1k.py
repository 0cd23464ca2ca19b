"""Linear probe of USP ViT-L on KL-16 latents, 50 epochs (Table 6).

bash tools/dist_train.sh configs/vit/vit-large_usp-pre_kl-f16d16_64xb256-amp-linear-coslr-50e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (on 8 nodes)
Paper: 74.5 (MAE 73.7).
"""

_base_ = './vit-base_usp-pre_kl-f16d16_64xb256-amp-linear-coslr-90e_in1k.py'

model = dict(backbone=dict(arch='large', frozen_stages=24))
train_cfg = dict(max_epochs=50)
