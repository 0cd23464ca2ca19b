"""USP ViT-B, 1600 epochs, cached latents, flip only (section 3.1).

bash tools/dist_train.sh configs/usp/usp_vit-base_64xb64-amp-coslr-1600e_in1k-latents.py 8  (on 8 nodes)
Paper: DiT-B/2 400K: FID 27.1; SiT-B/2 400K: FID 22.10.
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'

train_cfg = dict(max_epochs=1600)
