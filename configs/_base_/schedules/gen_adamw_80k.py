# LightningDiT's (Table 3): a constant 2e-4 for a batch of 1024, 64 epochs
_base_ = './gen_adamw_400k.py'

optim_wrapper = dict(optimizer=dict(lr=2e-4, betas=(0.9, 0.95)))
train_cfg = dict(max_iters=80_000, val_interval=20_000)
auto_scale_lr = dict(base_batch_size=1024)
