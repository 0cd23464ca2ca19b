"""UPerNet on a pixel MAE ViT-B, ADE20K: the baseline of section 3.3.2.

bash tools/dist_train.sh configs/upernet/upernet_vit-base_mae-pre_8xb2-amp-160k_ade20k-512x512.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
Paper (MAE): 46.2 (800 epochs), 48.1 (1600).
"""

_base_ = './upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]), backbone=dict(vae=dict(name='pixel'))
)
