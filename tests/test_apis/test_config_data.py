"""Configs that come with weights: values are read, code is not."""

import pytest
from helpers.small_world import ROOT, load_leaf, run_tool
from mmengine.config import Config

from usp_mm.apis.config_data import MODEL_TYPES, check_steps, check_types, dump_config, parse_config

LEAVES = sorted((ROOT / 'configs').glob('[!_]*/*.py'))
CONFIGS = [path for path in LEAVES if path.stem.endswith('_digits')]


@pytest.mark.parametrize(
    'text',
    [
        'import os', 'model = open("a")', 'model = dict(**other)', 'model = [x for x in (1,)]', 'a.b = 1', 'model = name',
        'with read_base():\n    pass', 'def f():\n    pass', 'model = f"{1}"', 'a = b = 1', 'model = dict([(1, 2)])',
        'model = -name',
    ],
)  # fmt: skip
def test_code_is_refused(text):
    with pytest.raises(ValueError, match=r"'config.py' line 1: '.*' is code, and a config that comes with weights holds"):
        parse_config(text, 'config.py')


def test_what_is_no_python_is_refused():
    with pytest.raises(ValueError, match=r"'config.py' line 1: .*: no config"):
        parse_config('model = (', 'config.py')


def test_values_are_read():
    text = '"""Words."""\nmodel = dict(type="USP", a=[1, -2.5, None], b=(True, {"c": "d"}))\nlr = 1e-3\n'
    assert parse_config(text, 'config.py') == dict(model=dict(type='USP', a=[1, -2.5, None], b=(True, {'c': 'd'})), lr=1e-3)


@pytest.mark.parametrize('path', CONFIGS[::3], ids=lambda path: path.stem)
def test_what_mmengine_dumps_and_what_is_dumped_here_are_read(path, tmp_path):
    cfg = load_leaf(path)
    values = dict(cfg.to_dict())
    assert parse_config(str(cfg.pretty_text), path) == values
    (tmp_path / 'config.py').write_text(dump_config(values))
    assert parse_config((tmp_path / 'config.py').read_text(), path) == values
    assert dict(Config.fromfile(tmp_path / 'config.py').to_dict()) == values


def test_what_is_no_value_is_not_dumped():
    with pytest.raises(ValueError, match="config key 'model' holds more than values"):
        dump_config(dict(lr=1, model=dict(type=object)))


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_the_model_of_every_config_passes(path):
    model = load_leaf(path).model
    assert model.type in MODEL_TYPES or path.parent.name in ('features', 'mask_rcnn')  # those have no model folder
    if model.type in MODEL_TYPES:
        check_types(model, path)


@pytest.mark.slow
def test_a_segmentor_is_known_before_anything_else_imports_it():
    model = dict(type='USPSegmentor', norm_cfg=dict(type='SyncBN'))
    done = run_tool('-c', f"from usp_mm.apis.config_data import check_types; check_types({model}, 'folder')")
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(
    ('model', 'told'),
    [
        (dict(type='os.system'), "is of model.type 'os.system': expected one of USP"),
        (dict(type='EncoderDecoder'), "is of model.type 'EncoderDecoder'"),
        (dict(type='USP', backbone=dict(type='subprocess.run')), "names the type 'subprocess.run'"),
        (dict(type='USP', backbone=dict(type='USPViT'), head=dict(type='HuggingFaceClassifier')), "'HuggingFaceClassifier'"),
        (dict(type='USP', backbone=dict(type=['x'])), r"names the type \['x'\]"),
        (dict(type='USP', backbone=dict(type='mmseg.ResNet')), "names the type 'mmseg.ResNet'"),
        (
            dict(type='USPClassifier', data_preprocessor=dict(batch_augments=dict(augments=dict(type='os.remove')))),
            "'os.remove'",
        ),
    ],
)
def test_types_from_elsewhere_are_refused(model, told):
    with pytest.raises(ValueError, match=told):
        check_types(model, 'folder')


def test_steps_from_elsewhere_are_refused():
    check_steps([dict(type='ResizeEdge', scale=4), dict(type='ADMCenterCrop', size=4), dict(type='CenterCrop')], 'folder')
    with pytest.raises(ValueError, match=r"names the type 'os.remove'"):
        check_steps([dict(type='os.remove')], 'folder')
