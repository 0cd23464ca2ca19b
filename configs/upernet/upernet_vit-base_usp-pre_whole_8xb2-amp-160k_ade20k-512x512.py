"""UPerNet on USP ViT-B, tested on whole images instead of windows.

bash tools/dist_train.sh configs/upernet/upernet_vit-base_usp-pre_whole_8xb2-amp-160k_ade20k-512x512.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'

model = dict(test_cfg=dict(_delete_=True, mode='whole'))
