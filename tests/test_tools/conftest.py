"""What the tests of several commands start from."""

import sys

import pytest
from helpers.small_world import ROOT, train_quickly
from mmengine.config import Config

CLASSIFIER = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'


@pytest.fixture(scope='session')
def classifier(small_world, tmp_path_factory):
    """Config file and checkpoint of a classifier of two digits."""
    folder = tmp_path_factory.mktemp('classifier')
    cfg = small_world.shrink(Config.fromfile(ROOT / CLASSIFIER))
    cfg.dump(folder / 'config.py')
    train_quickly(cfg, folder / 'work')
    return folder / 'config.py', folder / 'work' / 'epoch_1.pth'


@pytest.fixture
def dev_importable(monkeypatch):
    """The modules of dev/ can be imported."""
    monkeypatch.setattr(sys, 'path', [str(ROOT / 'dev'), *sys.path])
