"""Configs by name: files first, then those that come with the package, from any folder."""

from pathlib import Path

import pytest

from usp_mm.config.lookup import configs_folder, find_config
from usp_mm.engine.starting.loading import load_config

ROOT = Path(__file__).parents[2]
NAME = 'sit-xl-p2_usp-pre_8xb32-400k_in1k-256px'
FILE = ROOT / 'configs' / 'sit' / f'{NAME}.py'


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', f'sit/{NAME}', f'sit/{NAME}.py', f'configs/sit/{NAME}.py'])
def test_a_name_is_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == FILE


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f'{NAME}.py').write_text('')
    assert find_config(f'{NAME}.py') == Path(f'{NAME}.py')
    assert find_config(NAME) == FILE, 'this is not the name of the file here'


@pytest.mark.parametrize(
    ('name', 'close'),
    [
        (NAME.replace('400k', '40k'), f"; did you mean '{NAME}'?"),
        (f'/somewhere/{NAME}.py', f"; did you mean '{NAME}'?"),
        (f'dit/{NAME}.py', f"; did you mean '{NAME}'?"),
        ('zzz', ''),
        ('_base_/default_runtime.py', ''),
        ('', ''),
    ],
)
def test_an_unknown_name_gives_the_nearest(name, close):
    with pytest.raises(FileNotFoundError) as caught:
        find_config(name)
    told = f"no config at '{name}': give a file, or the name of a config that comes with usp_mm{close}"
    assert str(caught.value) == told


def test_every_name_is_of_one_config():
    names = [path.stem for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert len(names) > 40 and sorted(set(names)) == sorted(names)


def test_a_name_of_two_configs_is_refused(tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'x.py').write_text('')
    with pytest.raises(ValueError, match=r"^config 'x\.py' is one of a/x, b/x: give the folder too$"):
        find_config('x.py', tmp_path)
    assert find_config('b/x', tmp_path) == tmp_path / 'b' / 'x.py'


def test_an_installed_package_has_its_own_configs(tmp_path):
    package = tmp_path / 'site-packages' / 'usp_mm'
    (package.parent / 'configs').mkdir(parents=True)
    assert configs_folder(package) is None, "another project's folder"
    (package / '.mim' / 'configs' / 'sit').mkdir(parents=True)
    (package / '.mim' / 'configs' / 'sit' / 'here.py').write_text('')
    folder = configs_folder(package)
    assert folder == package / '.mim' / 'configs' and find_config('here', folder) == folder / 'sit' / 'here.py'
    assert configs_folder() == ROOT / 'configs'


def test_a_config_is_loaded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {'model.sampler.num_steps': 3}
    cfg = load_config('sit-tiny-p2_1xb64-2k_digits', options, initialises=False, evaluates=False)
    assert Path(cfg.filename) == ROOT / 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py' and cfg.model.sampler.num_steps == 3
    again = load_config(cfg, {'model.sampler.num_steps': 4}, initialises=False, evaluates=False)
    assert (again.model.sampler.num_steps, cfg.model.sampler.num_steps) == (4, 3), 'what was given is left alone'
    with pytest.raises(ValueError, match=r"unknown key 'num_stepz' in model\.sampler"):
        load_config(cfg, {'model.sampler.num_stepz': 4}, initialises=False, evaluates=False)


def test_a_picture_is_no_config(tmp_path):
    (tmp_path / 'cat.jpg').touch()
    with pytest.raises(ValueError, match=r"cat\.jpg' is no config: its name would end in \.py, \.json, \.yaml, \.yml"):
        find_config(tmp_path / 'cat.jpg')
