"""Pixel-space MAE of the same shape and recipe, 1600 epochs.

bash tools/dist_train.sh configs/usp/mae_vit-base_64xb64-amp-coslr-1600e_in1k.py 8  (on 8 nodes)
Paper (MAE): ADE20K 48.1.
"""

_base_ = './mae_vit-base_64xb64-amp-coslr-800e_in1k.py'

train_cfg = dict(max_epochs=1600)
