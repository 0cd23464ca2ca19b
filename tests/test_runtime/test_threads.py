"""How threads wait: set before torch is loaded, by the package and by every tool, unless the user has said how."""

import ast
import itertools
import os
import sys

import pytest
from helpers.small_world import ROOT, run_tool

from usp_mm.runtime import threads

TOOLS = [path for path in sorted(ROOT.glob('tools/**/*.py')) if '__main__' in path.read_text()]
#: Those import this package first too, or nothing that loads torch.
PARTS = {path.stem for path in ROOT.glob('dev/*')}
SHORT = {'GOMP_SPINCOUNT': '10000', 'KMP_BLOCKTIME': '1'}


@pytest.mark.parametrize(
    ('own', 'expected'),
    [
        ({}, SHORT),
        ({'GOMP_SPINCOUNT': '7'}, {**SHORT, 'GOMP_SPINCOUNT': '7'}),
        ({'KMP_BLOCKTIME': '0'}, {**SHORT, 'KMP_BLOCKTIME': '0'}),
        ({'OMP_WAIT_POLICY': 'active'}, {}),
        ({'OMP_WAIT_POLICY': 'PASSIVE', 'GOMP_SPINCOUNT': '5'}, {'GOMP_SPINCOUNT': '5'}),
    ],
)
def test_the_users_own_settings_win(own, expected, monkeypatch):
    for name in (*SHORT, 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, 'torch')
    threads.wait_briefly()
    assert {name: os.environ[name] for name in SHORT if name in os.environ} == expected


def test_nothing_is_set_once_torch_is_there(monkeypatch):
    monkeypatch.delenv('GOMP_SPINCOUNT', raising=False)
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    assert 'torch' in sys.modules
    threads.wait_briefly()
    assert 'GOMP_SPINCOUNT' not in os.environ


def imported(path):
    """Modules that a file imports when it is imported, in its own order."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def before_ours(names):
    """Those in front of the first of this package."""
    return itertools.takewhile(lambda name: name.split('.')[0] != 'usp_mm', names)


def test_every_tool_imports_this_package_before_torch():
    """So do the modules that tools are split into, as tools may import those first."""
    folders = ('benchmarks', 'model_zoo', 'quickstart_parts')  # benchmark_gpu runs in processes of its worker, which imports it
    files = [*TOOLS, *ROOT.glob('dev/*.py'), *(path for name in folders for path in ROOT.glob(f'dev/{name}/*.py'))]
    names = dict.fromkeys(name for path in files for name in before_ours(imported(path)) if name.split('.')[0] not in PARTS)
    assert len(TOOLS) > 15 and 'argparse' in names
    script = f"""
import importlib, sys
for name in {[*names]}:
    importlib.import_module(name)
    assert 'torch' not in sys.modules, name
"""
    done = run_tool('-c', script)
    assert done.returncode == 0, done.stderr


def test_the_library_reads_it_in_a_tool_that_imports_torch():
    env = {key: value for key, value in os.environ.items() if key not in (*SHORT, 'OMP_WAIT_POLICY')}
    script = "import os, runpy; runpy.run_path('tools/cache_latents.py'); import torch; print(os.environ['KMP_BLOCKTIME'])"
    done = run_tool('-c', script, env={**env, 'OMP_DISPLAY_ENV': 'VERBOSE', 'PYTHONPATH': str(ROOT)})
    assert done.stdout == '1\n', done.stderr
    if 'GOMP_SPINCOUNT' in done.stderr:  # printed by GNU's library as it is loaded
        assert "GOMP_SPINCOUNT = '10000'" in done.stderr
