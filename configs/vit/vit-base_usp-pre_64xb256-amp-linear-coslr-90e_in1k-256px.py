"""Linear probe of USP ViT-B at 256x256 (Table 8e).

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k-256px.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT  (on 8 nodes)
Paper: 64.3.
"""

_base_ = [
    '../_base_/models/usp_vit-base_linear.py',
    '../_base_/datasets/in1k_linear_256px.py',
    '../_base_/schedules/linear_lars_coslr_90e.py',
    '../_base_/linear_runtime.py',
]

model = dict(backbone=dict(img_size=256))
