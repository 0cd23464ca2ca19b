"""Mask R-CNN with ViTDet's pyramid and recipe on USP ViT-B, COCO, AP of boxes and masks; the paper names detection, without numbers.

bash tools/dist_train.sh configs/mask_rcnn/mask-rcnn_vit-base_usp-pre_vitdet_8xb8-amp-lsj-184k_coco-1024x1024.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    '../_base_/models/mask-rcnn_usp_vit-base.py',
    '../_base_/datasets/coco_lsj_1024x1024.py',
    '../_base_/schedules/vitdet_adamw_step_184k.py',
    '../_base_/mask-rcnn_runtime.py',
]
