"""What MMEngine, mmpretrain and OpenMIM find of this package by name."""

import re
import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest
import yaml
from mmengine.config import Config
from mmengine.hub import get_config, get_model

from usp_mm.compat.model_index import MIM
from usp_mm.config.lookup import find_config
from usp_mm.engine.starting.loading import load_config

ROOT = Path(__file__).resolve().parents[2]
LATENTS = 'usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
#: Needs no VAE.
PIXELS = 'usp_mm::usp/mae_vit-base_64xb64-amp-coslr-800e_in1k.py'
#: By the scope of its types.
TINY = {
    'mmpretrain': 'vit/vit-tiny_usp-pre_1xb64-coslr-10e_digits.py',
    'mmseg': 'upernet/upernet_vit-tiny_usp-pre_1xb8-1k_digits-scenes-128x128.py',
    'mmagic': 'sit/sit-tiny-p2_1xb64-2k_digits.py',
}
NAMES = {
    model['Name']
    for metafile in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    for model in yaml.safe_load((ROOT / metafile).read_text())['Models']
}


@pytest.mark.parametrize('name', [*TINY.values(), '_base_/default_runtime.py'])
def test_a_base_by_package_is_the_same_as_one_by_path(name, tmp_path):
    mine, same = tmp_path / 'mine.py', tmp_path / 'same.py'
    mine.write_text(f"_base_ = 'usp_mm::{name}'\nlog_level = 'WARNING'\n")
    same.write_text(f"_base_ = '{ROOT / 'configs' / name}'\nlog_level = 'WARNING'\n")
    found = Config.fromfile(mine)
    assert found.to_dict() == Config.fromfile(same).to_dict() and found.log_level == 'WARNING'


def test_a_config_with_a_base_by_package_is_checked_as_any(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = ['usp_mm::{LATENTS}']\nmodel = dict(mask_ratio=0.5)\n")
    cfg = load_config(file)
    assert (cfg.model.mask_ratio, cfg.default_scope) == (0.5, 'mmpretrain') and '_scope_' not in str(cfg.to_dict())
    file.write_text(f"_base_ = 'usp_mm::{LATENTS.replace('800e', '80e')}'\n")
    with pytest.raises(FileNotFoundError, match=f"did you mean '{Path(LATENTS).stem}'"):
        load_config(file)


def test_other_packages_bases_keep_their_scope(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n")
    assert Config.fromfile(tmp_path / 'mine.py').model._scope_ == 'mmpretrain'
    assert '_scope_' not in get_config('mmpretrain::resnet/resnet18_8xb32_in1k.py').model


@pytest.mark.parametrize('scope', TINY)
def test_get_config_names_the_scope_that_the_config_names(scope):
    cfg = get_config(f'usp_mm::{TINY[scope]}')
    assert cfg.model.pop('_scope_') == scope
    assert cfg.to_dict() == Config.fromfile(ROOT / 'configs' / TINY[scope]).to_dict()
    assert '_scope_' not in get_config('usp_mm::_base_/default_runtime.py')


def test_get_model_builds_and_has_no_weights_to_load():
    model = get_model(PIXELS)
    assert (type(model).__name__, len(model.backbone.blocks)) == ('USP', 12)
    with pytest.raises(AssertionError, match='Cannot find `Weights`'):
        get_model(PIXELS, pretrained=True)


def test_the_command_line_takes_the_same_name():
    assert find_config(f'usp_mm::{LATENTS}') == ROOT / 'configs' / LATENTS
    assert find_config('usp_mm::_base_/default_runtime.py') == ROOT / 'configs/_base_/default_runtime.py'


def test_mmpretrain_lists_all_of_them():
    assert set(mmpretrain.list_models('*usp*')) == {name for name in NAMES if 'usp' in name} and len(NAMES) > 90
    listed = mmpretrain.list_models()
    assert set(listed) >= NAMES and 'resnet18_8xb32_in1k' in listed and len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ('name', 'part', 'kind'),
    [
        (Path(LATENTS).stem, 'backbone', 'USP'),
        ('vit-base_usp-pre_8xb128-amp-coslr-100e_in1k', 'backbone', 'USPClassifier'),
        ('sit-xl-p2_usp-pre_8xb32-400k_in1k-256px', 'denoiser', 'LatentDiffusionGenerator'),
    ],
)
def test_mmpretrain_builds_one_by_name(name, part, kind):
    model = mmpretrain.get_model(name, data_preprocessor=dict(load_vae=False), **{part: dict(arch='tiny')})
    assert (type(model).__name__, model._metainfo.name) == (kind, name)


def test_mmpretrain_finds_the_types_of_other_projects():
    scopes = {scope: mmpretrain.ModelHub.get(Path(name).stem).config.model._scope_ for scope, name in TINY.items()}
    assert scopes == {scope: scope for scope in TINY}
    assert '_scope_' not in mmpretrain.ModelHub.get('resnet18_8xb32_in1k').config.model


def test_the_index_is_read_when_asked_for_and_once():
    code = (
        'import usp_mm, mmpretrain.apis.model as m\n'
        'print(len(m.ModelHub._models_dict))\n'
        f"m.ModelHub.register_model_index('{ROOT / 'model-index.yml'}')\n"
        "print(len(m.list_models('*usp*')))"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['0', str(len([name for name in NAMES if 'usp' in name]))]


def test_what_openmim_reads_is_linked_in_a_checkout():
    """`mim train usp_mm CONFIG` runs `.mim/tools/train.py` on the one file of that name below the package."""
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (MIM / name).is_symlink() and (MIM / name).resolve() == ROOT / name
    assert {path.name for path in MIM.iterdir()} == {'configs', 'tools', 'model-index.yml'}
    assert not re.search('--(gpus|device)', (MIM / 'tools' / 'train.py').read_text())
