_base_ = './own_adamw_coslr_200e.py'

optim_wrapper = dict(optimizer=dict(lr=6e-4))
auto_scale_lr = dict(base_batch_size=256)
