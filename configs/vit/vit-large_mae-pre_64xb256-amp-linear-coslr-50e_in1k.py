"""Linear probe of a pixel MAE ViT-L, 50 epochs.

bash tools/dist_train.sh configs/vit/vit-large_mae-pre_64xb256-amp-linear-coslr-50e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (on 8 nodes)
Paper (Table 6, MAE): 73.7.
"""

_base_ = './vit-base_mae-pre_64xb256-amp-linear-coslr-90e_in1k.py'

model = dict(backbone=dict(arch='large', frozen_stages=24))
train_cfg = dict(max_epochs=50)
