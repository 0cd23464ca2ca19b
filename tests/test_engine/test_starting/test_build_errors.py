"""Arguments that a class refuses when it is built."""

import pytest
from helpers.small_world import load_leaf
from mmengine.config import Config
from mmpretrain.registry import BATCH_AUGMENTS

from usp_mm.engine.starting.build_errors import explain_arguments
from usp_mm.engine.starting.build_runner import build_runner


def test_the_place_is_named():
    cfg = Config(dict(model=dict(train_cfg=dict(augments=[dict(type='CutMix', alpha=1.0), dict(type='Mixup')]))))
    with pytest.raises(ValueError, match=r"^model\.train_cfg\.augments\.1: Mixup.*missing 1 required.*'alpha'"):
        with explain_arguments(cfg):
            BATCH_AUGMENTS.build(cfg.model.train_cfg.augments[1])


def test_another_type_error_stays_what_it_is():
    with pytest.raises(TypeError, match='unsupported operand'), explain_arguments(Config(dict(a=dict(type='int')))):
        sum([1, 'a'])


def test_building_a_runner(tmp_path):
    cfg = load_leaf('configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py')
    cfg.work_dir, cfg.launcher = str(tmp_path), 'none'
    cfg.model.data_preprocessor.update(load_vae=False, batch_augments=dict(augments=dict(type='Mixup')), num_classes=10)
    with pytest.raises(ValueError, match=r"^model\.data_preprocessor\.batch_augments\.augments: .*'alpha'"):
        build_runner(cfg)
