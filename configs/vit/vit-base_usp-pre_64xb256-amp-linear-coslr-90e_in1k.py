"""Linear probe of USP ViT-B, class token (Table 12).

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (on 8 nodes)
Paper: 62.8 (Table 8, 800 epochs).
"""

_base_ = [
    '../_base_/models/usp_vit-base_linear.py',
    '../_base_/datasets/in1k_linear_224px.py',
    '../_base_/schedules/linear_lars_coslr_90e.py',
    '../_base_/linear_runtime.py',
]
