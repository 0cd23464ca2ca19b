"""ImageNet mean and standard deviation before the VAE (Table 11).

bash tools/dist_train.sh configs/usp/usp_vit-base_in1k-norm_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
Paper: loss 0.375, DiT-B/2 400K: FID 78.23 (with 0.5/0.5: 0.465, 28.26).
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k.py'

model = dict(data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
