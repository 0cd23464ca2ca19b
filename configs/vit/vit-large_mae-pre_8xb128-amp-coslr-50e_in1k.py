"""Fine-tuning of a pixel MAE ViT-L, 50 epochs.

bash tools/dist_train.sh configs/vit/vit-large_mae-pre_8xb128-amp-coslr-50e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper (Table 6, MAE): 85.4.
"""

_base_ = './vit-base_mae-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(backbone=dict(arch='large'))
train_cfg = dict(max_epochs=50)
