_base_ = './gen_adamw_400k.py'

optim_wrapper = dict(optimizer=dict(lr=2e-4), clip_grad=dict(max_norm=1.0))
train_cfg = dict(max_iters=2_000, val_interval=100)
