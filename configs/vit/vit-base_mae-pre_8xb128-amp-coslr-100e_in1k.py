"""Fine-tuning of a pixel MAE ViT-B.

bash tools/dist_train.sh configs/vit/vit-base_mae-pre_8xb128-amp-coslr-100e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper (Table 6, MAE): 83.3.
"""

_base_ = [
    '../_base_/models/usp_vit-base_finetune.py',
    '../_base_/datasets/in1k_finetune_in1k-norm_224px.py',
    '../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(vae=dict(name='pixel'), mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
