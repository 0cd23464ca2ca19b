"""USP ViT-L, 800 epochs, cached latents, flip only (section 3.1).

bash tools/dist_train.sh configs/usp/usp_vit-large_64xb64-amp-coslr-800e_in1k-latents.py 8  (on 8 nodes)
Paper: DiT-L/2 400K: FID 16.23 (Table 2).
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'

model = dict(backbone=dict(arch='large'))
