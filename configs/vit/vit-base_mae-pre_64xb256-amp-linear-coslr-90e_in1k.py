"""Linear probe of a pixel MAE ViT-B.

bash tools/dist_train.sh configs/vit/vit-base_mae-pre_64xb256-amp-linear-coslr-90e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (on 8 nodes)
Paper (Table 6, MAE): 65.1.
"""

_base_ = './vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'

model = dict(data_preprocessor=dict(vae=dict(name='pixel'), mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
