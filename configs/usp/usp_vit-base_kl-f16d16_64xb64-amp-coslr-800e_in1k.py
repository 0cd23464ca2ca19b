"""USP ViT-B on KL-16 latents, 800 epochs, the official code's online augmentation.

bash tools/dist_train.sh configs/usp/usp_vit-base_kl-f16d16_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
Paper: SFT 83.2, linear probe 66.9 (Tables 6, 8f).
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k.py'

model = dict(data_preprocessor=dict(vae=dict(name='kl-f16d16', path='pretrained/kl16.ckpt')))
