"""Requirements, the wheel's content, and the install logic of tools/env.sh."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from usp_mm import __version__

ROOT = Path(__file__).resolve().parents[1]
#: Of tools/, what calls dev/ or makes an environment of the checkout.
NEEDS_CHECKOUT = {'benchmark.py', 'make_model_zoo.py', 'quickstart.py', 'quickstart.sh', 'env.sh', 'test.sh', 'docs.sh'}


def read(name: str) -> list[Requirement]:
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return [Requirement(line) for line in lines if line]


OPENMMLAB = {'mmagic', 'mmcv-lite', 'mmengine', 'mmpretrain', 'mmsegmentation'}
#: What OpenMMLab's packages declare and tools/env.sh leaves out.
LEFT_OUT = {
    *('av', 'controlnet-aux', 'face-alignment', 'facexlib', 'lmdb', 'mediapipe'),
    *('opencv-python', 'pandas', 'resize-right', 'transformers'),
}


def names(*files: str) -> set[str]:
    return {canonicalize_name(requirement.name) for file in files for requirement in read(file)}


def declared(package: str) -> set[str]:
    """What an installed package requires without any extra."""
    found = [Requirement(line) for line in requires(package) or []]
    return {canonicalize_name(one.name) for one in found if not one.marker or one.marker.evaluate({'extra': ''})}


PINS = {canonicalize_name(pin.name): pin for pin in read('constraints')}


@pytest.mark.parametrize('name', ['runtime', 'seg', 'gen', 'demo', 'app', 'docs', 'dev', 'openmmlab'])
def test_every_requirement_is_pinned_within_its_range(name):
    for requirement in read(name):
        (pin,) = PINS[canonicalize_name(requirement.name)].specifier
        assert pin.operator == '=='
        assert requirement.specifier.contains(pin.version), requirement


def test_pins_are_exact_public_versions():
    for pin in PINS.values():
        assert re.fullmatch(r'==[0-9][0-9a-z.]*', str(pin.specifier)), pin


def test_installed_metadata_names_the_extras():
    assert version('usp-mm') == __version__
    found = [Requirement(line) for line in requires('usp-mm')]
    for extra in ('seg', 'gen', 'demo', 'app', 'dev'):
        required = {r.name for r in found if r.marker and r.marker.evaluate({'extra': extra})}
        assert required == {r.name for r in read(extra)}
        assert required <= {r.name for r in found if r.marker and r.marker.evaluate({'extra': 'all'})}


def test_all_that_openmmlab_declares_is_listed_or_left_out():
    assert set().union(*map(declared, OPENMMLAB)) - names('runtime', 'seg', 'gen', 'openmmlab') == LEFT_OUT
    assert not names('openmmlab') & (OPENMMLAB | LEFT_OUT)


def test_pip_misses_exactly_what_was_left_out_and_opencv_has_one_version():
    done = subprocess.run([sys.executable, '-m', 'pip', 'check'], capture_output=True, text=True)
    found = re.findall(r'^(\S+) \S+ requires (\S+), which is not installed\.$', done.stdout, re.MULTILINE)
    assert len(found) == len(done.stdout.splitlines()) - (done.returncode == 0), done.stdout
    installed = {canonicalize_name(one.metadata['Name']): one.version for one in distributions()}
    absent = LEFT_OUT - installed.keys()
    assert set(found) == {(package, name) for package in OPENMMLAB for name in declared(package) & absent}
    assert len({installed[name] for name in installed if name.startswith('opencv-')}) == 1


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A copy of the sources, and the wheel made of it."""
    folder = tmp_path_factory.mktemp('built')
    source = folder / 'source'
    ignore = shutil.ignore_patterns('__pycache__', '*.egg-info', '.*', 'data', 'work_dirs', 'build', 'tests')
    shutil.copytree(ROOT, source, ignore=ignore)
    options = ['-q', '--no-deps', '--no-build-isolation', '-w', str(folder)]
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', *options, str(source)], check=True)
    return source, folder / f'usp_mm-{__version__}-py3-none-any.whl'


def test_wheel_carries_configs_and_tools_for_mim(built):
    source, file = built
    with zipfile.ZipFile(file) as wheel:
        files = set(wheel.namelist())
        metadata = wheel.read(f'usp_mm-{__version__}.dist-info/METADATA').decode()
    assert metadata.endswith((ROOT / 'README.md').read_text())
    assert 'Description-Content-Type: text/markdown' in metadata
    assert 'usp_mm/py.typed' in files
    for folder in ('configs', 'tools'):
        expected = {f'usp_mm/.mim/{path.relative_to(source)}' for path in (source / folder).rglob('*') if path.is_file()}
        assert expected - {f'usp_mm/.mim/tools/{name}' for name in NEEDS_CHECKOUT} == {
            name for name in files if name.startswith(f'usp_mm/.mim/{folder}/')
        }
    assert {str(path.relative_to(source)) for path in (source / 'usp_mm').rglob('*.py')} <= files
    assert 'usp_mm/.mim/model-index.yml' in files
    assert not [name for name in files if name.split('/')[0] in ('tests', 'configs', 'tools', 'dev') or '/dev/' in name]


FROM_A_WHEEL = """
import usp_mm, mmpretrain
from mmengine import Config
from mmengine.hub import get_config
open('mine.py', 'w').write("_base_ = 'usp_mm::sit/sit-tiny-p2_1xb64-2k_digits.py'")
for cfg in (Config.fromfile('mine.py'), get_config('usp_mm::sit/sit-tiny-p2_1xb64-2k_digits.py')):
    print(cfg.model.denoiser.type)
print(get_config('usp_mm::sit/sit-tiny-p2_1xb64-2k_digits.py').filename)
print(mmpretrain.ModelHub.get('sit-tiny-p2_1xb64-2k_digits').config.filename)
"""


def test_other_projects_find_the_configs_of_an_installed_wheel(built, tmp_path):
    _, file = built
    with zipfile.ZipFile(file) as wheel:
        wheel.extractall(tmp_path / 'site')
    env = {**os.environ, 'PYTHONPATH': str(tmp_path / 'site')}
    done = subprocess.run([sys.executable, '-c', FROM_A_WHEEL], cwd=tmp_path, env=env, capture_output=True, text=True)
    config = str(tmp_path / 'site/usp_mm/.mim/configs/sit/sit-tiny-p2_1xb64-2k_digits.py')
    assert done.stdout.split() == ['SiT', 'SiT', config, config], done.stderr
    train = [sys.executable, tmp_path / 'site/usp_mm/.mim/tools/train.py', config, '--launcher', 'none']  # as OpenMIM calls it
    done = subprocess.run([*train, '--cfg-options', 'model.typ=x'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "unknown key 'typ' in model" in done.stderr and 'Traceback' not in done.stderr


@pytest.fixture
def environment(tmp_path):
    """Runs `ensure_env` with a stand-in for the environment's Python that logs what it is asked for."""
    venv, log = tmp_path / 'venv', tmp_path / 'log'
    (venv / 'bin').mkdir(parents=True)
    python = venv / 'bin' / 'python'
    python.write_text(f'#!/bin/sh\necho "$@" >>{log}\ncase "$*" in *"$FAIL"*) exit 1;; esac\n')
    python.chmod(0o755)
    for name in ('requirements', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ('setup.py', 'pyproject.toml'):
        shutil.copy(ROOT / name, tmp_path)

    def ensure(extras: str, fail: str = 'nothing') -> tuple[int, list[str]]:
        log.unlink(missing_ok=True)
        env = {**os.environ, 'USP_VENV': str(venv), 'FAIL': fail}
        script = f'set -euo pipefail; source {tmp_path}/tools/env.sh; ensure_env {extras}'
        code = subprocess.run(['bash', '-c', script], env=env, capture_output=True).returncode
        return code, [line for line in log.read_text().splitlines() if ' install ' in line] if log.exists() else []

    ensure.root, ensure.log = tmp_path, log
    return ensure


def asked(install: str) -> set[str]:
    """The packages that one call of pip is asked for."""
    words = install.partition('constraints.txt ')[2].partition(' -e ')[0].split()
    return {canonicalize_name(Requirement(word).name) for word in words if not word.startswith('--')}


def test_second_run_installs_nothing_and_all_satisfies_core(environment):
    code, installs = environment('core')
    assert code == 0
    assert 'constraints.txt' in installs[0] and 'constraints.txt' in installs[1]
    assert asked(installs[0]) == names('runtime', 'openmmlab') - OPENMMLAB | {'wheel'}
    assert environment('core') == (0, [])
    code, installs = environment('all')
    assert (code, 'torchdiffeq' in asked(installs[0])) == (0, True)
    assert environment('all') == environment('demo') == environment('core') == (0, [])


def test_the_quickstarts_environment_lies_between(environment):
    environment('core')
    code, installs = environment('demo')
    assert (code, asked(installs[0])) == (0, names('runtime', 'seg', 'gen', 'demo', 'openmmlab') - OPENMMLAB | {'wheel'})
    assert environment('demo') == environment('core') == (0, [])
    assert asked(environment('all')[1][0]) >= names('app', 'docs', 'dev')
    assert environment('everything') == (2, [])


def test_openmmlab_comes_without_what_it_declares_and_with_one_opencv(environment):
    _, (first, second) = environment('all')
    assert '--no-deps' not in first and '--no-deps' in second
    assert asked(second) == OPENMMLAB
    assert {name for name in asked(first) if name.startswith('opencv')} == {'opencv-python-headless'}
    assert LEFT_OUT & asked(first) <= names('dev')  # for tests alone


@pytest.mark.parametrize(('unwritten', 'calls'), [('', 0), ('1', 1)])
def test_modules_are_compiled_at_once_only_where_no_process_would(unwritten, calls, environment, monkeypatch):
    monkeypatch.setenv('PYTHONDONTWRITEBYTECODE', unwritten)
    assert environment('demo')[0] == 0
    assert [' mmagic.models' in line for line in environment.log.read_text().splitlines() if ' usp_mm.engine' in line] == [
        True
    ] * calls


def test_changed_requirements_are_installed(environment):
    environment('all')
    with (environment.root / 'requirements' / 'constraints.txt').open('a') as file:
        file.write('# changed\n')
    assert len(environment('all')[1]) == 2


@pytest.mark.parametrize('step', ['constraints.txt wheel', '--no-deps'])
def test_an_interrupted_install_is_taken_up_again(step, environment):
    environment('core')
    with (environment.root / 'setup.py').open('a') as file:
        file.write('# changed\n')
    assert environment('core', fail=step)[0] != 0
    assert len(environment('core')[1]) == 2


def test_no_suitable_python_is_one_clear_error(environment, tmp_path):
    tools = tmp_path / 'path'
    tools.mkdir()
    for name in ('bash', 'cat', 'cut', 'dirname', 'rm', 'sha256sum'):
        (tools / name).symlink_to(shutil.which(name))
    script = f'set -euo pipefail; source {environment.root}/tools/env.sh; ensure_env core'
    env = {'PATH': str(tools), 'USP_VENV': str(tmp_path / 'absent')}
    result = subprocess.run([str(tools / 'bash'), '-c', script], env=env, capture_output=True, text=True)
    assert result.returncode != 0
    assert result.stderr == 'no Python from 3.10 to 3.13 was found on PATH (tested: 3.11)\n'


def test_ci_runs_what_a_developer_runs():
    lines = (ROOT / '.ci' / 'run').read_text().splitlines()
    assert lines[1:] == ['set -eu', 'bash tools/test.sh']
    hooks = (ROOT / '.pre-commit-config.yaml').read_text()
    workflow = (ROOT / '.github' / 'workflows' / 'test.yml').read_text()
    commands = re.findall(r'^"\$USP_VENV/bin/(\w+)" (.+)$', (ROOT / 'tools' / 'test.sh').read_text(), re.MULTILINE)
    assert len(commands) == 3
    for tool, arguments in commands:
        assert f'{tool} {arguments}\n' in hooks
        assert f'{tool} {arguments}\n' in workflow
    assert ('mypy', 'usp_mm') in commands


@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'tests/README.md'])
def test_paths_that_a_page_names_are_there(page):
    words = re.findall(r'(?<![\w/.])(?:usp_mm|tests|tools|dev|docs|configs)/[\w/.-]*\w', (ROOT / page).read_text())
    assert [word for word in words if not (ROOT / word).exists()] == []
    assert words or page == 'tests/README.md'


def test_installing_is_told_for_a_checkout_as_long_as_the_package_is_not_published():
    """On every page and in every message: `pip install usp-mm` would take whatever another one publishes under that name."""
    texts = [
        ROOT / 'README.md',
        *(ROOT / 'docs').rglob('*.md'),
        *(ROOT / 'usp_mm').rglob('*.py'),
        *(ROOT / 'notebooks').glob('*'),
    ]
    told = {path: text for path in texts if (text := path.read_text()) and path.name != 'changelog.md'}
    assert len(told) > 200
    assert not [
        str(path) for path, text in told.items() if re.search(r"pip\s+install\s+(-U |--upgrade )?['\"]?usp[-_]mm", text)
    ]
    extras = {name.stem for name in (ROOT / 'requirements').glob('*.txt')} | {'all'}
    named = {extra for text in told.values() for extra in re.findall(r"pip install '\.\[(\w+)\]'", text)}
    assert {'all', 'app', 'gen', 'seg'} <= named <= extras
