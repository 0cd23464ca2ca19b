_base_ = './default_runtime.py'

# the BatchNorm neck's statistics are every process's own until they are averaged
default_hooks = dict(sync_buffers=dict(type='SyncBuffersHook'))
