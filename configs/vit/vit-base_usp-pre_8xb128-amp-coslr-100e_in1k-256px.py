"""Fine-tuning of USP ViT-B at 256x256 (Table 8e).

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k-256px.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper: 83.4.
"""

_base_ = [
    '../_base_/models/usp_vit-base_finetune.py',
    '../_base_/datasets/in1k_finetune_256px.py',
    '../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(img_size=256))
