_base_ = './gen_runtime.py'

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1_000, max_keep_ckpts=2),
    visualization=dict(interval=500, n_row=5, vis_kwargs_list=dict(forward_kwargs=dict(labels=list(range(10))))),
)
