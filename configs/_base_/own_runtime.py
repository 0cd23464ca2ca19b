_base_ = './usp_runtime.py'

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=20, max_keep_ckpts=2), restoration=dict(interval=50))
