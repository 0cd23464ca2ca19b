custom_imports = dict(imports=['usp_mm'])
default_scope = 'mmpretrain'

default_hooks = dict(
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3, backend_args=dict(backend='atomic')),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    iteration_seed=dict(type='StatelessSeedHook'),
    reduce_loss=dict(type='ReduceLossHook'),
    latent_cache=dict(type='LatentCacheCheckHook'),
    class_check=dict(type='ClassCheckHook', allow_unseen_classes=False),
    checkpoint_match=dict(type='CheckpointMatchHook'),
    merge_param_groups=dict(type='MergeParamGroupsHook', enable=True),
    resume=dict(type='ResumeHook'),
    accumulation=dict(type='AccumulationHook'),
    checkpoint_data=dict(type='CheckpointDataHook'),
    finite=dict(type='FiniteHook'),
    vae_record=dict(type='VAERecordHook'),
    save_best=dict(type='SaveBestCheckHook'),
    late_validation=dict(type='LateValidationHook'),
    run_info=dict(type='RunInfoHook'),
    tf32=dict(type='TF32Hook'),
    preemption=dict(type='PreemptionHook'),
)

visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
