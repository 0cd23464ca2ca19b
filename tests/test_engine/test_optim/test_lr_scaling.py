"""--auto-scale-lr: the official rule, written into the config once."""

import pytest
from helpers.small_world import ROOT, load_leaf
from mmengine.config import Config
from mmengine.optim import OneCycleLR

from usp_mm.engine.optim.lr_scaling import number_of_processes, other_batch, scale_learning_rates

PRETRAIN = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'


def config(**options):
    cfg = load_leaf(ROOT / PRETRAIN)
    cfg.merge_from_dict({'auto_scale_lr.enable': True, **options})
    return cfg


@pytest.mark.parametrize(
    ('processes', 'batch', 'accumulated'), [(1, 64, 8), (8, 64, 1), (8, 64, 4), (64, 64, 1), (4, 256, 4)]
)  # fmt: skip
def test_the_official_rule(processes, batch, accumulated, monkeypatch):
    """lr = base lr · batch · accumulation · processes / 256, of base lr 1.5e-4."""
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    options = {'train_dataloader.batch_size': batch, 'optim_wrapper.accumulative_counts': accumulated, 'launcher': 'pytorch'}
    cfg = config(**options)
    told = scale_learning_rates(cfg)
    whole = batch * accumulated * processes
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4 * whole / 256, rel=1e-12)
    assert cfg.auto_scale_lr == dict(base_batch_size=whole, enable=False)
    assert told == (
        f'auto_scale_lr: optim_wrapper.optimizer.lr 0.0024 for a batch of 4096 -> {1.5e-4 * whole / 256:g} for {whole} '
        f'({batch} x {accumulated} accumulated x {processes} processes)'
    )


def test_the_dumped_config_gives_the_same_rate_with_and_without_the_flag(tmp_path):
    cfg = config(**{'train_dataloader.batch_size': 8, 'optim_wrapper.accumulative_counts': 4})
    scale_learning_rates(cfg)
    rate = cfg.optim_wrapper.optimizer.lr
    assert rate == pytest.approx(2.4e-3 * 32 / 4096)
    cfg.dump(tmp_path / 'cfg.py')
    for flag in (False, True):
        again = Config.fromfile(tmp_path / 'cfg.py')
        again.auto_scale_lr.enable |= flag
        scale_learning_rates(again)
        assert again.optim_wrapper.optimizer.lr == rate and not again.auto_scale_lr.enable
    # and on other hardware the flag scales from there
    again = Config.fromfile(tmp_path / 'cfg.py')
    again.merge_from_dict({'auto_scale_lr.enable': True, 'train_dataloader.batch_size': 16})
    scale_learning_rates(again)
    assert again.optim_wrapper.optimizer.lr == pytest.approx(2 * rate)


def test_several_optimizers_are_all_scaled():
    cfg = config(**{'train_dataloader.batch_size': 2048})
    one = dict(optimizer=dict(type='SGD', lr=0.1))
    cfg.optim_wrapper = dict(constructor='GAN', generator=one, critic=dict(optimizer=dict(type='SGD', lr=0.4)))
    scale_learning_rates(cfg)
    assert [cfg.optim_wrapper[name].optimizer.lr for name in ('generator', 'critic')] == [0.05, 0.2]


def test_without_the_switch_nothing_is_scaled():
    cfg = config(**{'auto_scale_lr.enable': False})
    assert scale_learning_rates(cfg) is None and cfg.optim_wrapper.optimizer.lr == 2.4e-3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'auto_scale_lr.base_batch_size': None}, 'auto_scale_lr.base_batch_size is unset'),
        ({'optim_wrapper.optimizer': dict(type='Adam')}, 'optim_wrapper.optimizer.lr is unset: auto_scale_lr has nothing'),
        ({'param_scheduler': [dict(type='OneCycleLR', eta_max=0.1)]}, r'param_scheduler.0 \(OneCycleLR\) sets the rate by its'),
        ({'param_scheduler': dict(gen=[dict(type='OneCycleLR', eta_max=0.1)], critic=[])},
         r'param_scheduler.gen.0 \(OneCycleLR\) sets the rate'),
        ({'param_scheduler': dict(type='mmengine.OneCycleLR', eta_max=0.1)}, r'param_scheduler \(OneCycleLR\) sets the rate'),
        ({'param_scheduler': [dict(type=OneCycleLR, eta_max=0.1)]}, r'param_scheduler.0 \(OneCycleLR\) sets the rate'),
        ({'train_dataloader': dict(batch_sampler=dict(type='mmpretrain.GroupSampler'))},
         'train_dataloader.batch_size is unset: auto_scale_lr needs it'),
        ({'launcher': 'slurm'}, '--launcher slurm has not set SLURM_NTASKS, the number of processes'),
    ],
)  # fmt: skip
def test_what_cannot_be_scaled(options, message, monkeypatch):
    monkeypatch.delenv('SLURM_NTASKS', raising=False)
    cfg = config()
    for key, value in options.items():
        *path, last = key.split('.')
        node = cfg
        for part in path:
            node = node[part]
        node[last] = value
    with pytest.raises(ValueError, match=message):
        scale_learning_rates(cfg)


def unscaled(processes, given=(), **options):
    return other_batch(config(**{'auto_scale_lr.enable': False, **options}), processes, given)


@pytest.mark.parametrize(
    ('processes', 'batch', 'accumulated', 'numbers', 'fix'),
    [
        (8, 8, 1, '64 (8 x 1 accumulated x 8 processes)', 'optim_wrapper.accumulative_counts=64 for that batch, --auto-scale'),
        (1, 64, 1, '64 (64 x 1 accumulated x 1 process)', 'optim_wrapper.accumulative_counts=64 for that batch, --auto-scale'),
        (8, 64, 4, '2048 (64 x 4 accumulated x 8 processes)', 'optim_wrapper.accumulative_counts=8 for that batch, --auto'),
        (8, 48, 1, '384 (48 x 1 accumulated x 8 processes)', '--auto-scale-lr for the rate of this one'),
        (64, 128, 1, '8192 (128 x 1 accumulated x 64 processes)', '--auto-scale-lr for the rate of this one'),
    ],
)  # fmt: skip
def test_a_batch_that_the_rate_is_not_for_is_told(processes, batch, accumulated, numbers, fix):
    told = unscaled(processes, **{'train_dataloader.batch_size': batch, 'optim_wrapper.accumulative_counts': accumulated})
    expected = (
        f'optim_wrapper.optimizer.lr=0.0024 is for a batch of 4096 (auto_scale_lr.base_batch_size), and this run has {numbers}'
    )
    assert told.startswith(f'{expected}: set {fix}')
    assert told.endswith(f'or auto_scale_lr.base_batch_size={numbers.split()[0]} if 0.0024 is meant')


@pytest.mark.parametrize(
    ('processes', 'given', 'options'),
    [
        (64, (), {}),
        (8, (), {'optim_wrapper.accumulative_counts': 8}),
        (1, ('optim_wrapper.optimizer.lr',), {}),  # of --cfg-options: meant for this run
        (1, (), {'auto_scale_lr.base_batch_size': 64}),
        (1, (), {'auto_scale_lr.base_batch_size': None}),
        (1, (), {'train_dataloader.batch_size': None}),
    ],
)
def test_a_batch_that_fits_or_is_meant_is_not_told(processes, given, options):
    assert unscaled(processes, given, **options) is None


def test_a_scaled_rate_or_a_config_without_a_batch_is_not_told():
    cfg = config()
    scale_learning_rates(cfg)
    assert other_batch(cfg, 1) is None
    assert other_batch(cfg, 2).startswith('optim_wrapper.optimizer.lr=3.75e-05 is for a batch of 64 ')
    cfg.auto_scale_lr = None
    assert other_batch(cfg, 2) is None


def test_of_several_optimizers_the_one_is_named_whose_batch_differs():
    one, other = dict(optimizer=dict(lr=0.1)), dict(optimizer=dict(lr=0.4), accumulative_counts=64)
    cfg = config(**{'auto_scale_lr.enable': False})
    cfg.optim_wrapper = dict(constructor='GAN', generator=other, critic=one)
    assert other_batch(cfg, 1).startswith('optim_wrapper.critic.optimizer.lr=0.1 is for a batch of 4096')
    assert other_batch(cfg, 1, ['optim_wrapper.critic.optimizer.lr']) is None


def test_each_launcher_tells_its_processes(monkeypatch):
    for launcher, variable in (('pytorch', 'WORLD_SIZE'), ('slurm', 'SLURM_NTASKS'), ('mpi', 'OMPI_COMM_WORLD_SIZE')):
        monkeypatch.setenv(variable, '6')
        assert number_of_processes(launcher) == 6
    assert number_of_processes('none') == 1
