"""USP ViT-L on KL-16 latents, 800 epochs, cached latents, flip only (section 3.1).

bash tools/dist_train.sh configs/usp/usp_vit-large_kl-f16d16_64xb64-amp-coslr-800e_in1k-latents.py 8  (on 8 nodes)
Paper: SFT 84.8, linear probe 74.5 (Table 6).
"""

_base_ = './usp_vit-base_kl-f16d16_64xb64-amp-coslr-800e_in1k-latents.py'

model = dict(backbone=dict(arch='large'))
