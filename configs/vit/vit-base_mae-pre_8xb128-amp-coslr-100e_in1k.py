"""Fine-tuning of a pixel MAE ViT-B.

bash tools/dist_train.sh configs/vit/vit-base_mae-pre_8xb128-amp-coslr-100e_in1k.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper (Table 6, MAE): 83.3.
"""

_base_ = './vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(data_preprocessor=dict(vae='pixel', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
