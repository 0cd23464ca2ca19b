"""UPerNet on USP ViT-B, ADE20K, mIoU (section 3.3.2); the checkpoint chooses 800 or 1600 epochs of pretraining.

bash tools/dist_train.sh configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper: 46.7 (800 epochs), 48.6 (1600).
"""

_base_ = [
    '../_base_/models/upernet_usp_vit-base.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/upernet_adamw_poly_160k.py',
    '../_base_/upernet_runtime.py',
]
