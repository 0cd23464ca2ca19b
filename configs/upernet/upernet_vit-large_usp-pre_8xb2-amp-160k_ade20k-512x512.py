"""UPerNet on USP ViT-L, ADE20K.

bash tools/dist_train.sh configs/upernet/upernet_vit-large_usp-pre_8xb2-amp-160k_ade20k-512x512.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'

model = dict(backbone=dict(arch='large'))
