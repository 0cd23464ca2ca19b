"""Fine-tuning of USP ViT-B (Table 13), mixup and cutmix of latents.

bash tools/dist_train.sh configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper: 82.6 (Table 8, 800 epochs).
"""

_base_ = [
    '../_base_/models/usp_vit-base_finetune.py',
    '../_base_/datasets/in1k_finetune_224px.py',
    '../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../_base_/default_runtime.py',
]
