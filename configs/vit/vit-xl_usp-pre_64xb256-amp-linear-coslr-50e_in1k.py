"""Linear probe of USP ViT-XL, class token, 50 epochs as ViT-L (Table 12).

bash tools/dist_train.sh configs/vit/vit-xl_usp-pre_64xb256-amp-linear-coslr-50e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (on 8 nodes)
"""

_base_ = './vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'

model = dict(backbone=dict(arch='xl', frozen_stages=28))
train_cfg = dict(max_epochs=50)
