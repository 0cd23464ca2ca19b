"""USP ViT-XL with LightningDiT's block on VA-VAE latents at 256x256, 800 epochs.

bash tools/dist_train.sh configs/usp/usp_vit-xl_va-f16d32-lightning_64xb64-amp-coslr-800e_in1k-256px-latents.py 8  (on 8 nodes)
"""

_base_ = './usp_vit-xl_va-f16d32_64xb64-amp-coslr-800e_in1k-256px-latents.py'

model = dict(backbone=dict(block='lightning'))
