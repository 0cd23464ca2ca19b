"""Pixel-space MAE of the same shape and recipe: the baseline of Table 6 and the initialisation of Table 8a.

bash tools/dist_train.sh configs/usp/mae_vit-base_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
Paper (MAE): SFT 83.3, linear probe 65.1 (Table 6); ADE20K 46.2; DiT-B/2 400K from its weights: FID 43.55.
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k.py'

model = dict(data_preprocessor=dict(vae=dict(name='pixel'), mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
default_hooks = dict(restoration=dict(composite='visible'))
