import pytest
from helpers.small_world import load_leaf
from mmengine.config import Config

from usp_mm.config.values import parse_value
from usp_mm.engine.checks.config import check_config, merge_cfg_options
from usp_mm.engine.checks.config.whole_config import misspelt_variables

CONFIG = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px.py'


def checked(path, words):
    """The config with these options, checked as a tool does."""
    cfg = load_leaf(path)
    merge_cfg_options(cfg, {key: parse_value(value) for key, _, value in (word.partition('=') for word in words.split())})
    check_config(cfg, initialises=False)
    return cfg


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('trian_cfg.max_epochs', "unknown key 'trian_cfg'.*did you mean 'train_cfg'"),
        ('train_dataloader.dataset.pipeline.9.scale', "unknown key '9'"),
        ('param_scheduler.7', "unknown key '7'"),
        ('model.backbone.arch.depth', "model.backbone.arch is 'base', which has no parts: set model.backbone.arch as a whole"),
    ],
)
def test_options_that_lead_nowhere(option, message):
    with pytest.raises(ValueError, match=message):
        merge_cfg_options(Config.fromfile(CONFIG), {option: 1})


@pytest.mark.parametrize(
    'part', ["{'type':'Pretrained','checkpoint':'x'}", "dict(type='Pretrained',_delete_=True,checkpoint='x')"]
)
def test_a_dict_where_there_was_nothing(part):
    cfg = checked(CONFIG, f'model.backbone.init_cfg={part}')
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='x')
    cfg = checked(CONFIG, "train_cfg=None model_wrapper_cfg={'type':'MMDistributedDataParallel'}")
    assert cfg.model_wrapper_cfg == dict(type='MMDistributedDataParallel')


def test_dicts_beside_and_inside_one_another_all_arrive():
    """Whatever the order, below a dict that replaces another one, and where a dict inside a dict has nothing to meet."""
    replaced = {'optim_wrapper': dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))}
    clipped = {'optim_wrapper.clip_grad': dict(max_norm=1)}
    for options in (replaced | clipped, clipped | replaced):
        cfg = Config.fromfile(CONFIG)
        merge_cfg_options(cfg, options)
        assert cfg.optim_wrapper == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=1))
    cfg = Config(
        dict(model=dict(backbone=dict(init_cfg=None, depth=1), neck=None), param_scheduler=[dict(type='B', x=1), dict(x=2)])
    )
    options = {
        'model.backbone': dict(init_cfg=dict(_delete_=True, type='P', more=dict(_delete_=True, a=1))),
        'model.neck': dict(_delete_=True, inner=dict(_delete_=True, b=2)),
        'param_scheduler.0': dict(_delete_=True, type='C'),
        'param_scheduler.1': dict(x=3),
    }
    merge_cfg_options(cfg, options)
    assert cfg.model == dict(
        backbone=dict(init_cfg=dict(type='P', more=dict(a=1)), depth=1), neck=dict(inner=dict(b=2))
    ) and cfg.param_scheduler == [dict(type='C'), dict(x=3)]


@pytest.mark.parametrize(
    ('options', 'found'),
    [
        ({'model.a': {1: 2}}, dict(a={1: 2}, b={1: 2, 3: dict(x=1)})),
        ({'model.a': dict(x={1: dict(y=2)})}, dict(a=dict(x={1: dict(y=2)}), b={1: 2, 3: dict(x=1)})),
        ({'model.b': {3: dict(y=2), 4: 5}}, dict(a=None, b={1: 2, 3: dict(x=1, y=2), 4: 5})),
        ({'model.b': {'_delete_': True, 4: 5}}, dict(a=None, b={4: 5})),
        ({'model.b': dict(l={0: 1})}, dict(a=None, b={1: 2, 3: dict(x=1), 'l': {0: 1}})),
        ({'model': dict(c={5: 6})}, dict(a=None, b={1: 2, 3: dict(x=1)}, c={5: 6})),
    ],
)
def test_keys_that_are_numbers(options, found):
    cfg = Config(dict(model=dict(a=None, b={1: 2, 3: dict(x=1)})))
    merge_cfg_options(cfg, options)
    assert cfg.model == found


def test_all_misspelt_keys_at_the_top_come_at_once():
    with pytest.raises(ValueError, match=r"custom_hoks: .*'custom_hooks'\?(.|\n)*modle.a: .*did you mean 'model'"):
        merge_cfg_options(Config.fromfile(CONFIG), {'custom_hoks': [], 'model.neck': None, 'modle.a': 3})


def test_valid_options_pass():
    cfg = Config.fromfile(CONFIG)
    options = {
        'model.backbone.drop_path_rate': 0.1,
        'train_dataloader.dataset.pipeline.2.scale': 128,
        'find_unused_parameters': True,
    }
    merge_cfg_options(cfg, options)
    check_config(cfg)
    assert cfg.train_dataloader.dataset.pipeline[2].scale == 128


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('model.backbone.drop_path', "unknown key 'drop_path' in model.backbone: USPViT takes.*did you mean 'drop_path_rate'"),
        ('model.mask_ration', "unknown key 'mask_ration' in model: USP takes.*did you mean 'mask_ratio'"),
        ('model.data_preprocessor.vae.pth', "in model.data_preprocessor.vae:.*did you mean 'path'"),
        ('train_dataloader.dataset.data_rot', "in train_dataloader.dataset: ImageFolder takes.*did you mean 'data_root'"),
        ('optim_wrapper.paramwise_cfg.flat_decay_mul', "in optim_wrapper.paramwise_cfg: .*did you mean 'flat_decay_mult'"),
        ('auto_scale_lr.enabel', "in auto_scale_lr: .*did you mean 'enable'"),
        ('default_hooks.restoration.intervall', "in default_hooks.restoration: RestorationHook.*did you mean 'interval'"),
    ],
)
def test_arguments_that_a_class_does_not_take(key, message):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({key: 1})
    with pytest.raises(ValueError, match=message):
        check_config(cfg)


def test_every_fault_is_a_line_of_one_error():
    words = [
        'model.mask_ration=1', 'model.backbone.drop_path=1', 'model.backbone.img_sise=2', 'model.backbone.patch_size=a',
        'optim_wrapper.optimizer.lrr=1', 'param_scheduler.0.ned=1', 'param_scheduler.1.type=CosineAnnealingLRR',
        'train_cfg.max_epoch=3', 'default_hooks.logger.intervall=1', 'env_cfg.cudnn=1',
    ]  # fmt: skip
    with pytest.raises(ValueError, match='unknown') as refused:
        checked(CONFIG, ' '.join(words))
    lines = str(refused.value).splitlines()
    assert len(lines) == 9
    for place, *told in (
        ('model:', "unknown key 'mask_ration'", "did you mean 'mask_ratio'?"),
        ('model.backbone:', "unknown keys 'drop_path', 'img_sise'", "did you mean 'drop_path_rate'?; did you mean 'img_size'?"),
        ('model.backbone.patch_size=', "'a'"),
        ('optim_wrapper.optimizer:', "unknown key 'lrr'"),
        ('param_scheduler.0:', "unknown key 'ned'", "did you mean 'end'?"),
        ('param_scheduler.1;', "unknown type 'CosineAnnealingLRR'"),
        ('train_cfg:', "unknown key 'max_epoch'", "did you mean 'max_epochs'?"),
        ('default_hooks.logger:', "unknown key 'intervall'"),
        ('env_cfg:', "unknown key 'cudnn'"),
    ):
        (line,) = [line for line in lines if place in line]
        assert all(words in line for words in told), line


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('model.backbone.type', 'USPVit', "unknown type 'USPVit' in model.backbone; did you mean 'USPViT'"),
        (
            'train_dataloader.dataset.pipeline.1.type',
            'LoadImag',
            r"unknown type 'LoadImag' in .*pipeline\.1; did you mean 'LoadImage'",
        ),
        ('optim_wrapper.optimizer.type', 'AdamV', "unknown type 'AdamV' in optim_wrapper.optimizer; did you mean 'Adam"),
    ],
)
def test_unknown_types(key, value, message):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({key: value})
    with pytest.raises(ValueError, match=message):
        check_config(cfg)


def test_unset_and_missing_checkpoints(tmp_path):
    cfg = Config.fromfile(LINEAR)
    with pytest.raises(ValueError, match=r'model\.backbone\.init_cfg\.checkpoint is unset.*--cfg-options'):
        check_config(cfg)
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'nothing.pth')
    with pytest.raises(FileNotFoundError, match=r"no file at '.*nothing.pth'"):
        check_config(cfg)


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('model.guidance.scales', "unknown key 'scales' in model.guidance: .*did you mean 'scale'"),
        ('model.ema.momentun', "unknown key 'momentun' in model.ema: .*did you mean 'momentum'"),
        ('model.sampler.steps', "unknown key 'steps' in model.sampler: SDESampler.*did you mean 'num_steps'"),
        ('model.denoiser.norm_afine', "in model.denoiser: SiT takes.*did you mean 'norm_affine'"),
        ('train_cfg.max_iter', "in train_cfg: PositionedIterTrainLoop takes.*did you mean 'max_iters'"),
        ('val_evaluator.metrics.refrence', "in val_evaluator.metrics: ADMMetrics takes.*did you mean 'reference'"),
        ('val_evaluator.metric', "unknown key 'metric' in val_evaluator: Evaluator takes.*did you mean 'metrics'"),
        ('val_dataloader.sampler.shufle', "in val_dataloader.sampler: DefaultSampler takes.*did you mean 'shuffle'"),
    ],
)
def test_arguments_of_a_generator_config(key, message):
    cfg = Config.fromfile('configs/sit/sit-base-p2_8xb32-400k_in1k-256px.py')
    check_config(cfg)
    cfg.merge_from_dict({key: 1})
    with pytest.raises(ValueError, match=message):
        check_config(cfg)


@pytest.mark.parametrize(
    ('path', 'words'),
    [
        (CONFIG, 'optim_wrapper.clip_grad.max_norm=1.0'),
        (CONFIG, 'optim_wrapper.clip_grad.type=value optim_wrapper.clip_grad.clip_value=1'),
        (CONFIG, 'optim_wrapper.paramwise_cfg.custom_keys.pos_embed.lr_mult=0.1'),
        (CONFIG, 'optim_wrapper.constructor=LearningRateDecayOptimWrapperConstructor '
                 'optim_wrapper.paramwise_cfg.layer_decay_rate=0.7'),
        (CONFIG, 'optim_wrapper.type=AmpOptimWrapper optim_wrapper.loss_scale=512'),
        (CONFIG, 'param_scheduler.2.type=ConstantLR param_scheduler.2.factor=1.0'),
        (CONFIG, 'custom_hooks.0.type=EMAHook custom_hooks.0.momentum=1e-4 custom_hooks.0.priority=LOW'),
        (CONFIG, "custom_hooks=[{'type':'EMAHook','momentum':0.001}]"),
        (CONFIG, 'env_cfg.cudnn_benchmark=True env_cfg.mp_cfg.opencv_num_threads=1 env_cfg.dist_cfg.timeout=9'),
        (CONFIG, 'randomness.diff_rank_seed=True log_processor.num_digits=3 auto_scale_lr.enable=True'),
        (CONFIG, 'model_wrapper_cfg.static_graph=True sync_bn=torch activation_checkpointing=backbone'),
        (CONFIG, 'model_wrapper_cfg.type=MMFullyShardedDataParallel model_wrapper_cfg.cpu_offload=True'),
        (CONFIG, 'compile=True'),
        (CONFIG, 'compile.mode=max-autotune'),
        (CONFIG, 'train_dataloader.num_batch_per_epoch=10 train_dataloader.prefetch_factor=4'),
        (CONFIG, 'train_dataloader.collate_fn.type=default_collate'),
        (CONFIG, 'default_hooks.checkpoint.max_keep_ckpts=3 resume=True load_from=a.pth experiment_name=x log_level=DEBUG'),
        (CONFIG, 'runner_type=FlexibleRunner strategy.type=SingleDeviceStrategy'),
        (SIT, 'model.denoiser.init_cfg.type=USPPretrained model.denoiser.init_cfg.checkpoint=a.pth'),
        (SIT, 'model.ema.momentum=1e-3 model.guidance.scale=4 model.guidance.interval=0,1'),
        (SIT, 'model.ema=None model.sample_model=model'),
        (SIT, 'model.repa.teacher=dinov2-b model.repa.weight=0.5'),
        (SIT, 'model.repa.teacher.name=dinov2-b model.repa.teacher.path=x'),
        (SIT, 'model.compile_denoiser.mode=default'),
        (SIT, 'model.compile.region=loss model.compile.mode=max-autotune-no-cudagraphs'),
        (CONFIG, 'model.compile=blocks model.tf32=False'),
        (LINEAR, 'model.compile=blocks model.tf32=False'),
        (LINEAR, 'default_hooks.early.type=EarlyStoppingHook default_hooks.early.monitor=accuracy/top1'),
        (LINEAR, 'train_dataloader.dataset.metainfo.classes=a,b'),
        (LINEAR, 'model.train_cfg.augments.type=Mixup model.train_cfg.augments.alpha=0.8'),
        (LINEAR, 'visualizer.vis_backends.0.type=WandbVisBackend visualizer.vis_backends.0.init_kwargs.project=x'),
        (LINEAR, 'model.data_preprocessor.noise.timestep=100 test_cfg.fp16=True'),
        (LINEAR, 'model.head.loss.type=LabelSmoothLoss model.head.loss.label_smooth_val=0.1'),
        (LINEAR, "model.backbone.arch={'depth':2}"),
    ],
)  # fmt: skip
def test_new_keys_that_something_takes(path, words):
    cfg = checked(path, words)
    key, _, value = words.split()[-1].partition('=')
    node = cfg._cfg_dict
    for part in key.split('.'):
        node = node[int(part)] if isinstance(node, list) else node[part]
    assert node == parse_value(value)


@pytest.mark.parametrize(
    ('path', 'word', 'message'),
    [
        (CONFIG, 'model.bakcbone.arch=base', "unknown key 'bakcbone' in model: USP takes.*did you mean 'backbone'"),
        (CONFIG, 'optim_wrapper.clip_gard.max_norm=1', "unknown key 'clip_gard' in optim_wrapper.*did you mean 'clip_grad'"),
        (CONFIG, 'optim_wrapper.clip_grad.maxnorm=1', r"'maxnorm' in optim_wrapper\.clip_grad: .*did you mean 'max_norm'"),
        (CONFIG, 'env_cfg.cudnn_bechmark=True', "'cudnn_bechmark' in env_cfg: .*did you mean 'cudnn_benchmark'"),
        (CONFIG, 'env_cfg.mp_cfg.opencv_threads=1', r"in env_cfg\.mp_cfg: .*did you mean 'opencv_num_threads'"),
        (CONFIG, 'randomness.sed=1', "'sed' in randomness: .*did you mean 'seed'"),
        (CONFIG, 'log_processor.window=1', "'window' in log_processor: .*did you mean 'window_size'"),
        (CONFIG, 'compile.mod=x', "'mod' in compile: .*did you mean 'mode'"),
        (CONFIG, 'model_wrapper_cfg.statik_graph=1', "in model_wrapper_cfg: .*did you mean 'static_graph'"),
        (CONFIG, 'default_hooks.early.type=EarlyStopingHook', "unknown type.*default_hooks.early; .*'EarlyStoppingHook'"),
        (CONFIG, 'default_hooks.early.patience=3', 'default_hooks.early has no type: expected dict'),
        (CONFIG, 'param_scheduler.2.factor=1', r'param_scheduler\.2 has no type'),
        (CONFIG, 'custom_hooks.3.type=EMAHook', 'custom_hooks has no type'),
        (SIT, 'model.ema.model=1', "unknown key 'model' in model.ema: WeightAverage takes \\['momentum'\\]"),
        (SIT, 'model.repa.geometry=1', "unknown key 'geometry' in model.repa: REPA takes"),
        (SIT, 'model.denoiser.init_cfg.checkpoint=x', r'model\.denoiser\.init_cfg has no type'),
        (LINEAR, 'model.train_cfg.augmets.type=Mixup', "'augmets' in model.train_cfg: .*did you mean 'augments'"),
        (LINEAR, 'model.train_cfg.augments.type=Mixupp', "unknown type 'Mixupp'.*did you mean 'Mixup'"),
        (LINEAR, 'train_dataloader.dataset.metainf.classes=a', "'metainf' in train_dataloader.dataset: .*'metainfo'"),
        (LINEAR, 'model.data_preprocessor.noise.timestp=1', r"in model\.data_preprocessor\.noise: .*'timestep'"),
    ],
)
def test_new_keys_that_nothing_takes(path, word, message):
    with pytest.raises(ValueError, match=message):
        checked(path, word)


@pytest.mark.parametrize(
    ('path', 'word', 'message'),
    [
        (CONFIG, 'optim_wrapper.optimizer.lr=fast', r"^optim_wrapper\.optimizer\.lr='fast': AdamW takes a number"),
        (CONFIG, 'optim_wrapper.optimizer.betas=0.9,x', r"^optim_wrapper\.optimizer\.betas=\[0.9, 'x'\]: AdamW takes a list"),
        (CONFIG, 'optim_wrapper.optimizer=5', r'^optim_wrapper\.optimizer=5'),
        (CONFIG, 'optim_wrapper.accumulative_counts=0', r'accumulative_counts=0: .* takes an integer of 1 or more'),
        (CONFIG, 'train_cfg.max_epochs=abc', r"^train_cfg\.max_epochs='abc': EpochBasedTrainLoop takes an integer"),
        (CONFIG, 'train_cfg.max_epochs=0', r'^train_cfg\.max_epochs=0: .* takes an integer of 1 or more'),
        (CONFIG, 'train_cfg.val_interval=0', r'^train_cfg\.val_interval=0: .* takes an integer of 1 or more'),
        (CONFIG, 'train_cfg=5', r'^train_cfg=5: Runner takes a dict'),
        (CONFIG, 'train_dataloader.batch_size=8.5', r'^train_dataloader\.batch_size=8.5: DataLoader takes an integer'),
        (CONFIG, 'train_dataloader.batch_size=0', r'^train_dataloader\.batch_size=0: DataLoader takes an integer of 1 or'),
        (CONFIG, 'train_dataloader.batch_size=-4', r'^train_dataloader\.batch_size=-4: DataLoader takes an integer of 1'),
        (CONFIG, 'model.backbone.img_size=abc', r"^model\.backbone\.img_size='abc': USPViT takes an integer"),
        (CONFIG, 'model.backbone.drop_path_rate.x=1', r'^model\.backbone\.drop_path_rate'),
        (CONFIG, 'model.data_preprocessor.vae.path=/a,b', r"vae\.path=\['/a', 'b'\]: .*text.*a comma makes a list: in quotes"),
        (CONFIG, 'model.data_preprocessor.vae.path=7', r'vae\.path=7: .* takes text.*in quotes of its own'),
        (CONFIG, 'launcher=3', '^launcher=3: Runner takes text'),
        (CONFIG, 'default_hooks.early=5', r'^default_hooks\.early=5 must be a dict'),
        (SIT, 'model.guidance=4', r'^model\.guidance=4: LatentDiffusionGenerator takes a dict'),
        (SIT, 'model.guidance.channels=2.5', r'^model\.guidance\.channels=2.5: Guidance takes an integer or None'),
    ],
)
def test_values_of_another_kind(path, word, message):
    with pytest.raises(ValueError, match=message):
        checked(path, word)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('runner_type=NoSuchRunner', "^unknown runner_type 'NoSuchRunner'; did you mean 'Runner'"),
        ('runner_type=FlexibelRunner', "did you mean 'FlexibleRunner'"),
        ('strategy.type=DDPStrategy', 'strategy is set, but Runner does not read it: set runner_type='),
        ('runner_type=FlexibleRunner compile=True', "compile is set, but FlexibleRunner does not read it: .*'Runner'"),
        ('runner_type=FlexibleRunner strategy.type=DeepSpeedStrategy', "'DeepSpeedStrategy' needs GPUs .*DeviceStrategy, DDP"),
        ('runner_type=FlexibleRunner strategy.type=FSDPStrategy', "'FSDPStrategy' needs GPUs .*SingleDeviceStrategy, DDP"),
        ('cfg=1', "unknown key 'cfg'"),
    ],
)
def test_no_top_level_key_is_ignored(words, message):
    with pytest.raises(ValueError, match=message):
        checked(CONFIG, words)


def test_a_variable_of_a_file_cannot_be_set():
    cfg = load_leaf(CONFIG)
    cfg.dataset_type = cfg.train_dataloader.dataset.type
    with pytest.raises(ValueError, match=r"'dataset_type' is a variable .*: set train_dataloader\.dataset\.type"):
        merge_cfg_options(cfg, {'dataset_type': 'X'})


def test_a_strategy_in_a_file_that_the_runner_would_ignore():
    cfg = load_leaf(CONFIG)
    cfg.strategy = dict(type='DDPStrategy')
    with pytest.raises(ValueError, match="strategy is set, but Runner does not read it: set runner_type='FlexibleRunner'"):
        check_config(cfg)


def test_a_misspelt_variable_of_a_file():
    cfg = load_leaf(CONFIG)
    assert misspelt_variables(cfg) == []
    cfg.trian_cfg, cfg.my_pipeline = cfg.pop('train_cfg'), []
    assert misspelt_variables(cfg) == ["'trian_cfg'; did you mean 'train_cfg'?"]


def test_hooks_are_left_out_and_modules_imported(tmp_path, monkeypatch):
    (tmp_path / 'my_hooks_to_import.py').write_text('LOADED = True\n')
    monkeypatch.syspath_prepend(tmp_path)
    cfg = checked(CONFIG, 'default_hooks.restoration=None default_hooks.timer=None custom_imports.imports=my_hooks_to_import')
    assert 'restoration' not in cfg.default_hooks and cfg.default_hooks.timer is None
    assert __import__('sys').modules['my_hooks_to_import'].LOADED


@pytest.mark.parametrize(
    'schedule',
    [None, dict(type='ConstantLR', factor=1.0), dict(a=dict(type='ConstantLR'), b=[dict(type='ConstantLR')]), []],
)
def test_every_form_of_a_schedule(schedule):
    cfg = load_leaf(CONFIG)
    cfg.param_scheduler = schedule
    check_config(cfg)


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        (
            dict(type='ConstantLR', begin=900),
            r'max_epochs=800 ends before param_scheduler begins, at 900: .*param_scheduler\.begin=E',
        ),
        (dict(a=[dict(type='ConstantLR', begin=900)]), r'ends before param_scheduler\.a\.0 begins'),
        (dict(type='ConstantLR', factr=1.0), "unknown key 'factr' in param_scheduler: ConstantLR.*did you mean 'factor'"),
        (dict(b=[dict(type='ConstantLR', factr=1.0)]), r"unknown key 'factr' in param_scheduler\.b\.0"),
    ],
)
def test_faults_in_every_form_of_a_schedule(schedule, message):
    cfg = load_leaf(CONFIG)
    cfg.param_scheduler = schedule
    with pytest.raises(ValueError, match=message):
        check_config(cfg)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('randomness.seed=abc', r"randomness\.seed='abc' must be an integer from 0"),
        ('randomness.seed=-1', r'randomness\.seed=-1 must be an integer from 0'),
        ('log_level=INFOO', r"log_level='INFOO' must be one of DEBUG, .*did you mean 'INFO'"),
        ('env_cfg=None', 'env_cfg=None must be a dict'),
        ('randomness=None', 'randomness=None must be a dict'),
        ('model=None', 'model=None must be a dict'),
    ],
)
def test_what_mmengine_would_trip_over(words, message):
    with pytest.raises(ValueError, match=message):
        checked(CONFIG, words)


def test_the_profiler_knows_its_own_types():
    words = 'custom_hooks.0.type=ProfilerHook custom_hooks.0.on_trace_ready.type=log_trace log_level=DEBUG'
    assert checked(CONFIG, words).custom_hooks[0].on_trace_ready.type == 'log_trace'
