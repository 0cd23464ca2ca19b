_base_ = './default_runtime.py'

default_scope = 'mmagic'
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=10_000),
    ema=dict(type='GeneratorEMAHook'),
    generator_check=dict(type='GeneratorCheckHook'),
    visualization=dict(
        _delete_=True,
        type='VisualizationHook',  # mmagic's
        priority=88,  # after FiniteHook, before CheckpointHook
        interval=10_000,
        n_samples=1,  # calls of the model: one draws all these classes
        n_row=4,
        vis_kwargs_list=dict(
            type='Arguments',
            name='samples',
            forward_kwargs=dict(labels=[88, 207, 250, 279, 291, 360, 387, 417, 928, 974, 979, 980]),
        ),
    ),
)
visualizer = dict(type='Visualizer')  # mmagic's
log_processor = dict(type='LogProcessor', by_epoch=False)
