_base_ = './gen_adamw_400k.py'

optim_wrapper = dict(optimizer=dict(lr=3e-4))
train_cfg = dict(max_iters=2_000, val_interval=250)
auto_scale_lr = dict(base_batch_size=64)
