"""Fine-tuning of USP ViT-B from the class token instead of averaged tokens.

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_cls-token_8xb128-amp-coslr-100e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(backbone=dict(out_type='cls_token'))
