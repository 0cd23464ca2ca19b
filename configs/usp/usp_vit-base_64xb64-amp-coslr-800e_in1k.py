"""USP ViT-B, 800 epochs, the official code's online augmentation.

bash tools/dist_train.sh configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py 8  (on 8 nodes)
Paper: DiT-B/2 400K: FID 28.26; SFT 82.6, linear probe 62.8 (Table 8); loss 0.465.
"""

_base_ = [
    '../_base_/models/usp_vit-base.py',
    '../_base_/datasets/in1k_usp_224px.py',
    '../_base_/schedules/usp_adamw_coslr_800e.py',
    '../_base_/usp_runtime.py',
]
