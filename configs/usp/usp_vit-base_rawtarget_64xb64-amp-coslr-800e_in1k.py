"""Targets without patch normalisation (Table 8c).

bash tools/dist_train.sh configs/usp/usp_vit-base_rawtarget_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
Paper: loss 0.289, SFT 82.5, linear probe 63.4, DiT-B/2 400K: FID 30.65 (with: 0.465, 82.6, 62.8, 28.26).
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k.py'

model = dict(head=dict(norm_pix=None))
