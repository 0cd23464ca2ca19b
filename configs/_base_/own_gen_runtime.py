_base_ = './gen_runtime.py'

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=500, max_keep_ckpts=2),
    visualization=dict(interval=500, vis_kwargs_list=dict(forward_kwargs=dict(labels=[0]))),
)
