"""USP ViT-XL, 800 epochs, the official code's online augmentation.

bash tools/dist_train.sh configs/usp/usp_vit-xl_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
Paper: DiT-XL/2 400K: FID 10.28 (Table 2).
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k.py'

model = dict(backbone=dict(arch='xl'))
