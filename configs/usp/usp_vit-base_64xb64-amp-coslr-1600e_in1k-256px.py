"""USP ViT-B at 256x256, 1600 epochs: what SiT-B/2 at 512x512 starts from.

bash tools/dist_train.sh configs/usp/usp_vit-base_64xb64-amp-coslr-1600e_in1k-256px.py 8  (on 8 nodes)
Paper: SiT-B/2 at 512x512, 400K: FID 33.89, IS 45.03.
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k-256px.py'

train_cfg = dict(max_epochs=1600)
