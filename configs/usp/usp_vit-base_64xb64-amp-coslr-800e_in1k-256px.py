"""Pretraining at 256x256 (Table 8e).

bash tools/dist_train.sh configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-256px.py 8  (on 8 nodes)
Paper: SFT 83.4, linear probe 64.3, DiT-B/2 400K: FID 26.86, IS 51.07.
"""

_base_ = [
    '../_base_/models/usp_vit-base.py',
    '../_base_/datasets/in1k_usp_256px.py',
    '../_base_/schedules/usp_adamw_coslr_800e.py',
    '../_base_/usp_runtime.py',
]

model = dict(backbone=dict(img_size=256))
