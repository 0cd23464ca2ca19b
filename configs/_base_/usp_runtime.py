_base_ = './default_runtime.py'

default_hooks = dict(restoration=dict(type='RestorationHook', interval=20))
