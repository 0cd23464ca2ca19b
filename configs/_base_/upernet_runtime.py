_base_ = './default_runtime.py'

default_scope = 'mmseg'
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=16_000),
    batch_norm=dict(type='BatchNormMeanHook'),
    visualization=dict(_delete_=True, type='SegVisualizationHook'),
)
visualizer = dict(
    _delete_=True,
    type='NamedSegVisualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)
log_processor = dict(by_epoch=False)
