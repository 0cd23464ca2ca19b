_base_ = './gen_adamw_400k.py'

optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=2_000, val_interval=1_000)
auto_scale_lr = dict(base_batch_size=32)
