"""USP ViT-XL with LightningDiT's block on VA-VAE latents at 256x256, 1600 epochs: for Table 3's generators.

bash tools/dist_train.sh configs/usp/usp_vit-xl_va-f16d32-lightning_64xb64-amp-coslr-1600e_in1k-256px-latents.py 8  (on 8 nodes)
Paper: SiT-XL/1 on VA-VAE, 64 epochs: FID 4.2, with guidance 1.81 (Table 3).
"""

_base_ = './usp_vit-xl_va-f16d32_64xb64-amp-coslr-800e_in1k-256px-latents.py'

model = dict(backbone=dict(block='lightning'))
train_cfg = dict(max_epochs=1600)
