import pytest
from mmengine.config import Config

from usp_mm.engine.config_check import check_cfg_options, check_config

CONFIG = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('trian_cfg.max_epochs', "unknown key 'trian_cfg'.*did you mean 'train_cfg'"),
        ('model.bakcbone.arch', "unknown key 'bakcbone'.*model has.*did you mean 'backbone'"),
        ('train_dataloader.dataset.pipeline.9.scale', "unknown key '9'"),
        ('param_scheduler.7', "unknown key '7'"),
        ('model.backbone.arch.depth', "model.backbone.arch is 'base', which has no parts: set model.backbone.arch as a whole"),
    ],
)
def test_options_that_lead_nowhere(option, message):
    with pytest.raises(ValueError, match=message):
        check_cfg_options(Config.fromfile(CONFIG), {option: 1})


def test_valid_options_pass():
    cfg = Config.fromfile(CONFIG)
    options = {
        'model.backbone.drop_path_rate': 0.1,
        'train_dataloader.dataset.pipeline.2.scale': 128,
        'find_unused_parameters': True,
    }
    check_cfg_options(cfg, options)
    cfg.merge_from_dict(options)
    check_config(cfg)
    assert cfg.train_dataloader.dataset.pipeline[2].scale == 128


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('model.backbone.drop_path', "unknown key 'drop_path' in model.backbone: USPViT takes.*did you mean 'drop_path_rate'"),
        ('model.mask_ration', "unknown key 'mask_ration' in model: USP takes.*did you mean 'mask_ratio'"),
        ('model.data_preprocessor.vae_pth', "in model.data_preprocessor.*did you mean 'vae_path'"),
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
