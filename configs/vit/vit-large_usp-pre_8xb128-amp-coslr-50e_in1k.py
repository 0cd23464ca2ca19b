"""Fine-tuning of USP ViT-L, 50 epochs (Table 13).

bash tools/dist_train.sh configs/vit/vit-large_usp-pre_8xb128-amp-coslr-50e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(backbone=dict(arch='large'))
train_cfg = dict(max_epochs=50)
