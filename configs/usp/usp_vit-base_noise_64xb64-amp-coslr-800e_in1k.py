"""Noised input, clean target, alpha-bar uniform in [0.5, 1) (appendix A).

bash tools/dist_train.sh configs/usp/usp_vit-base_noise_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k.py'

model = dict(alpha_bar_range=(0.5, 1.0))
