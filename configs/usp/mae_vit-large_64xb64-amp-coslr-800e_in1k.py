"""Pixel-space MAE, large.

bash tools/dist_train.sh configs/usp/mae_vit-large_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
Paper (Table 6, MAE): SFT 85.4, linear probe 73.7.
"""

_base_ = './mae_vit-base_64xb64-amp-coslr-800e_in1k.py'

model = dict(backbone=dict(arch='large'))
