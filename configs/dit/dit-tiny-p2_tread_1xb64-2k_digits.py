"""DiT on handwritten digits from scratch with TREAD's routed tokens, the demo.

python tools/train.py configs/dit/dit-tiny-p2_tread_1xb64-2k_digits.py  (on the data of docs/demo-data.md#digits)
"""

_base_ = './dit-tiny-p2_1xb64-2k_digits.py'

model = dict(denoiser=dict(route=dict(keep=0.5, start=1, end=-1)))  # two of the four blocks
