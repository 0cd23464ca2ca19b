"""LightningDiT's block, times, loss and sampler (Table 3) on handwritten digits from scratch, the demo.

python tools/train.py configs/sit/sit-tiny-p2_lightning_1xb64-2k_digits.py  (on the data of docs/demo-data.md#digits)
"""

_base_ = './sit-tiny-p2_1xb64-2k_digits.py'

model = dict(
    denoiser=dict(block='lightning', learn_sigma=False),
    objective=dict(times='logit_normal', cosine_weight=1.0),
    sampler=dict(_delete_=True, type='ODESampler', method='euler', num_steps=20),
)
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.95)))
