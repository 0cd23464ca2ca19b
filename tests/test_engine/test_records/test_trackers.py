"""`--tracker`: the config that results, and the message where a package is missing."""

import importlib.util
from pathlib import Path

import pytest
from helpers.small_world import load_leaf
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from usp_mm.engine.records.trackers import use_trackers

PACKAGES = {'tensorboard': 'tensorboard', 'wandb': 'wandb', 'mlflow': 'mlflow'}


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *rest: name if name in PACKAGES else find(name, *rest))
    for name in ('WANDB_PROJECT', 'WANDB_NAME', 'MLFLOW_EXPERIMENT_NAME', 'MLFLOW_TRACKING_URI'):
        monkeypatch.delenv(name, raising=False)


def config():
    cfg = load_leaf('configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py')
    cfg.work_dir = 'work_dirs/digits'
    return cfg


def kinds(cfg):
    return [backend['type'] for backend in cfg.visualizer.vis_backends]


@pytest.mark.parametrize(
    ('names', 'wanted'),
    [
        (['wandb'], ['LocalVisBackend', 'WandbVisBackend']),
        (['mlflow', 'tensorboard'], ['LocalVisBackend', 'MLflowPictureVisBackend', 'TensorboardVisBackend']),
        (['wandb', 'wandb'], ['LocalVisBackend', 'WandbVisBackend']),
    ],
)
def test_the_backends_that_result_can_be_built(names, wanted, tmp_path):
    cfg = config()
    use_trackers(cfg, names)
    assert kinds(cfg) == wanted and cfg.visualizer.type == 'UniversalVisualizer'
    for backend in cfg.visualizer.vis_backends:
        VISBACKENDS.build({**backend, 'save_dir': str(tmp_path)})


def test_the_run_is_named_as_its_folder_or_as_the_environment_says(monkeypatch):
    cfg = config()
    use_trackers(cfg, ['wandb', 'mlflow'])
    _, wandb, mlflow = cfg.visualizer.vis_backends
    assert wandb.init_kwargs == dict(project='usp_mm', name='digits')
    folder = Path('work_dirs').absolute()
    assert (mlflow.exp_name, mlflow.run_name, mlflow.tracking_uri) == ('usp_mm', 'digits', f'sqlite:///{folder}/mlflow.db')
    assert mlflow.artifact_location == f'{folder}/mlflow-artifacts'
    monkeypatch.setenv('WANDB_PROJECT', 'mine')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'sqlite:///runs.db')
    cfg = config()
    use_trackers(cfg, ['wandb', 'mlflow'])
    _, wandb, mlflow = cfg.visualizer.vis_backends
    assert wandb.init_kwargs.project == 'mine' and mlflow.tracking_uri == 'sqlite:///runs.db'
    assert 'artifact_location' not in mlflow


def test_a_backend_of_the_config_keeps_its_settings():
    cfg = config()
    cfg.visualizer.vis_backends = [dict(type='WandbVisBackend', init_kwargs=dict(project='theirs'))]
    use_trackers(cfg, ['wandb'])
    assert kinds(cfg) == ['LocalVisBackend', 'WandbVisBackend']
    assert cfg.visualizer.vis_backends[1].init_kwargs == dict(project='theirs')
    bare = Config(dict(work_dir='a/b'))
    use_trackers(bare, ['tensorboard'])
    assert bare.visualizer.type == 'Visualizer' and kinds(bare) == ['LocalVisBackend', 'TensorboardVisBackend']


@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_a_missing_package_is_one_line(name, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda *_: None)
    with pytest.raises(ValueError, match=f'^--tracker {name}: {name} is not installed: `pip install {name}`$'):
        use_trackers(config(), [name])


def test_an_unknown_tracker_is_named(tool_here):
    code, told = tool_here('tools/train.py', 'x.py', '--tracker', 'comet')
    assert code == 2 and "invalid choice: 'comet'" in told
