"""USP ViT-XL, 1600 epochs, cached latents, flip only (section 3.1).

bash tools/dist_train.sh configs/usp/usp_vit-xl_64xb64-amp-coslr-1600e_in1k-latents.py 8  (on 8 nodes)
Paper: DiT-XL/2 400K: FID 9.73; SiT-XL/2 400K: FID 7.38.
"""

_base_ = './usp_vit-xl_64xb64-amp-coslr-800e_in1k-latents.py'

train_cfg = dict(max_epochs=1600)
