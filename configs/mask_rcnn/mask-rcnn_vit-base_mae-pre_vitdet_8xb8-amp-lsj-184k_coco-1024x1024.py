"""Mask R-CNN with ViTDet's pyramid and recipe on a pixel MAE ViT-B, COCO: the baseline.

bash tools/dist_train.sh configs/mask_rcnn/mask-rcnn_vit-base_mae-pre_vitdet_8xb8-amp-lsj-184k_coco-1024x1024.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './mask-rcnn_vit-base_usp-pre_vitdet_8xb8-amp-lsj-184k_coco-1024x1024.py'

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]), backbone=dict(vae=dict(name='pixel'))
)
