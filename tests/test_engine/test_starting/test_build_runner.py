"""What tools/train.py and tools/test.py do with a config before the runner runs."""

import logging
import os
from unittest.mock import Mock, patch

import pytest
import torch
from helpers.small_world import load_leaf
from mmengine.runner import FlexibleRunner, Runner

from usp_mm.engine.starting.build_runner import CHECKS, build_runner, keep_logging, load_run_config, missing_checks, wrap_model

CONFIG = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'


def test_options_come_last():
    cfg = load_run_config(CONFIG, dict(launcher='slurm', work_dir='a b'))
    assert (cfg.launcher, cfg.work_dir) == ('slurm', 'a b')


def run(small_world, folder, epochs, **settings):
    cfg = small_world.shrink(load_leaf(CONFIG))
    cfg.update(work_dir=str(folder), launcher='none', experiment_name=f'epochs{epochs}', **settings)
    cfg.train_cfg.max_epochs = epochs
    runner = build_runner(cfg)
    runner.train()
    return runner


@pytest.mark.slow
def test_the_runner_that_is_asked_for(small_world, tmp_path):
    flexible = dict(runner_type='FlexibleRunner', strategy=dict(type='SingleDeviceStrategy'))
    whole = run(small_world, tmp_path / 'whole', 2, **flexible)
    assert type(whole) is FlexibleRunner
    run(small_world, tmp_path / 'resumed', 1, **flexible)
    run(small_world, tmp_path / 'resumed', 2, resume=True, **flexible)
    found = [torch.load(tmp_path / name / 'epoch_2.pth', weights_only=True)['state_dict'] for name in ('whole', 'resumed')]
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    assert type(run(small_world, tmp_path / 'plain', 1)) is Runner


def test_a_name_that_cannot_stand_in_the_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--work-dir: the name b'caf\\xe9' is not UTF-8: choose another"):
        load_run_config(CONFIG, work_dir=os.fsdecode(b'caf\xe9'))


def test_a_log_that_cannot_be_written_is_told_once(tmp_path, capfd):
    logger = logging.Logger('full')
    logger.addHandler(logging.FileHandler(tmp_path / 'run.log'))
    keep_logging(logger)
    logger.info(os.fsdecode(b'caf\xe9'))
    with patch.object(logger.handlers[0], 'stream', Mock(write=Mock(side_effect=OSError(28, 'No space left on device')))):
        logger.info('lost')
        logger.info('lost too')
    assert (tmp_path / 'run.log').read_text() == 'caf\\udce9\n'
    said = f"the log '{tmp_path}/run.log' cannot be written ([Errno 28] No space left on device): the run goes on without it\n"
    assert capfd.readouterr().err == said


@pytest.fixture
def in_a_group(tmp_path, monkeypatch):
    """This process is a group of one, as far as torch knows, and its heartbeat is recorded."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    heartbeat = Mock()
    monkeypatch.setattr('usp_mm.engine.starting.build_runner.start_heartbeat', lambda: heartbeat)
    yield heartbeat
    torch.distributed.destroy_process_group()


def test_each_iteration_counts_twice_for_the_heartbeat(small_world, tmp_path, in_a_group):
    cfg = small_world.shrink(load_leaf(CONFIG))
    cfg.update(work_dir=str(tmp_path), launcher='none', experiment_name='heartbeat')
    cfg.train_cfg.max_epochs = 3
    runner = build_runner(cfg)
    runner.train()
    assert in_a_group.advance.call_count == 2 * runner.iter > 0


def test_another_runner_joins_processes_on_gpus_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = load_leaf(CONFIG)
    cfg.update(runner_type='FlexibleRunner', launcher='pytorch', work_dir=str(tmp_path))
    with pytest.raises(ValueError, match="runner_type 'FlexibleRunner' joins several processes on GPUs alone"):
        build_runner(cfg)


@pytest.mark.parametrize(
    ('changes', 'place'),
    [
        ({}, 'model.norm_cfg'),
        ({'norm_cfg': dict(type='BN'), 'decode_head.norm_cfg': dict(type='SyncBN')}, 'model.decode_head.norm_cfg'),
        ({'norm_cfg': None, 'auxiliary_head.norm_cfg': dict(type='mmseg.SyncBN')}, 'model.auxiliary_head.norm_cfg'),
    ],
)
def test_norms_that_join_processes_do_so_on_gpus_alone(changes, place, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = load_leaf('configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py')
    cfg.merge_from_dict({'launcher': 'pytorch', **{f'model.{key}': value for key, value in changes.items()}})
    told = f"{place}.type='SyncBN' joins processes on GPUs alone, and none is visible: set {place}.type=BN"
    with pytest.raises(ValueError, match=f'^{told}$'):
        build_runner(cfg)
    cfg = load_leaf(CONFIG)
    cfg.update(launcher='pytorch', sync_bn='torch')
    with pytest.raises(ValueError, match=r"^sync_bn='torch' joins processes on GPUs alone, .*: leave it out$"):
        build_runner(cfg)


@pytest.mark.parametrize(
    ('on_gpu', 'given', 'expected'),
    [
        (False, None, dict(device_ids=None)),
        (False, dict(static_graph=True, device_ids=[0]), dict(static_graph=True, device_ids=None)),
        (False, dict(gradient_as_bucket_view=False), dict(gradient_as_bucket_view=False, device_ids=None)),
        (
            True,
            dict(find_unused_parameters=False, broadcast_buffers=True),
            dict(find_unused_parameters=False, broadcast_buffers=True),
        ),
    ],
)
def test_arguments_of_the_wrapper_are_kept(on_gpu, given, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: on_gpu)
    cfg = load_leaf(CONFIG)
    cfg.update(launcher='pytorch', find_unused_parameters=True, **({'model_wrapper_cfg': given} if given else {}))
    wrap_model(cfg)
    default = dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True)
    assert cfg.model_wrapper_cfg == {**default, 'gradient_as_bucket_view': True, **expected}


@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_weights_are_split_on_gpus_alone(launcher, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = load_leaf(CONFIG)
    cfg.update(launcher=launcher, model_wrapper_cfg=dict(type='MMFullyShardedDataParallel', cpu_offload=True))
    with pytest.raises(ValueError, match=r"cfg\.type='MMFullyShardedDataParallel' splits .* and no GPU is visible"):
        build_runner(cfg)


def test_one_process_is_not_wrapped():
    cfg = load_leaf(CONFIG)
    cfg.launcher = 'none'
    wrap_model(cfg)
    assert 'model_wrapper_cfg' not in cfg


def test_hooks_that_are_left_out_are_told():
    cfg = load_leaf(CONFIG)
    assert missing_checks(cfg) is None
    cfg.default_hooks = None
    line = missing_checks(cfg)
    assert line.startswith('not looked at in this run, since the config has no AtomicCheckpointHook, CheckpointMatchHook, ')
    cfg.custom_hooks = [dict(type=name) for name in CHECKS if name != 'FiniteHook']
    assert 'has no FiniteHook:' in missing_checks(cfg)
