"""A run with REPA from end to end: trained, resumed, and sampled when the teacher's file is gone."""

import os
import shutil

import pytest
from helpers.resumed_runs import resumed_to_the_bit
from helpers.small_generation import shrink_generation
from helpers.small_world import ROOT, train_quickly
from mmengine.config import Config
from mmengine.runner import Runner

from usp_mm.apis import load_generator, sample_classes

CONFIG = 'configs/sit/sit-tiny-p2_repa_1xb64-2k_digits.py'


@pytest.fixture
def config(small_world, tmp_path):
    """Makes the config for so many iterations without validation; its teacher is a file of this test's own."""
    own = tmp_path / 'teacher.pth'

    def config(iterations: int) -> Config:
        cfg = shrink_generation(small_world, Config.fromfile(ROOT / CONFIG))
        if not (tmp_path / 'teacher.pth.gone').exists() and not own.exists():
            shutil.copy(cfg.model.repa.teacher.checkpoint, own)
        cfg.model.repa.teacher.checkpoint = str(own)
        cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size = iterations, 2
        cfg.default_hooks.visualization.interval = 1000
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    return config


def test_resumed_to_the_bit_and_sampled_without_the_teacher(config, tmp_path):
    whole = resumed_to_the_bit(config, tmp_path)
    names = [name for name in whole['state_dict'] if name.startswith('repa.')]
    assert names == [f'repa.projector.{k}.{name}' for k in (0, 2, 4) for name in ('weight', 'bias')]

    os.replace(tmp_path / 'teacher.pth', tmp_path / 'teacher.pth.gone')
    checkpoint = tmp_path / 'whole' / 'iter_4.pth'
    model = load_generator(config(4), checkpoint, 'cpu')
    assert model.model.repa is None and sample_classes(model, [1], 2)[0].shape == (2, 64, 64, 3)

    cfg = config(4)
    cfg.load_from, cfg.work_dir = str(checkpoint), str(tmp_path / 'test')
    tester = Runner.from_cfg(cfg)
    tester.test()
    assert not tester.model.repa.teacher.loaded

    with pytest.raises(FileNotFoundError, match=r'teacher\.pth is not a file'):
        train_quickly(config(1), tmp_path / 'never')
    assert not list((tmp_path / 'never').glob('*.pth'))
