"""USP with LightningDiT's block on handwritten digits, the demo.

python tools/train.py configs/usp/usp_vit-tiny_lightning_1xb64-coslr-120e_digits.py  (on the data of docs/demo-data.md#digits)
"""

_base_ = './usp_vit-tiny_1xb64-coslr-120e_digits.py'

model = dict(backbone=dict(block='lightning'))
