"""USP ViT-L, 1600 epochs, the official code's online augmentation.

bash tools/dist_train.sh configs/usp/usp_vit-large_64xb64-amp-coslr-1600e_in1k.py 8  (on 8 nodes)
Paper: DiT-L/2 400K: FID 15.04.
"""

_base_ = './usp_vit-large_64xb64-amp-coslr-800e_in1k.py'

train_cfg = dict(max_epochs=1600)
