_base_ = './default_runtime.py'

default_scope = 'mmdet'
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=9_220),
    visualization=dict(_delete_=True, type='DetVisualizationHook'),
    num_classes=dict(type='NumClassCheckHook'),
)
visualizer = dict(
    _delete_=True,
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)
log_processor = dict(by_epoch=False)
