"""Older names of modules import what they were, and say where it is now."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.python_scripts import run_script

from usp_mm.renaming.modules import MOVED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(('older', 'now'), MOVED.items(), ids=MOVED)
def test_an_older_name_is_the_module_of_now(older, now):
    sys.modules.pop(older, None)
    with pytest.warns(FutureWarning, match=rf'^{older} is now {now}: the older name goes in the next release$'):
        found = importlib.import_module(older)
    assert found is importlib.import_module(now) and found.__name__ == found.__spec__.name == now


def test_names_and_what_lies_below():
    for name in [name for name in sys.modules if name.startswith('usp_mm.engine.config_check')]:
        del sys.modules[name]
    with pytest.warns(FutureWarning, match='usp_mm.engine.config_check.check is now usp_mm.engine.checks.config.whole_config'):
        from usp_mm.engine.config_check.check import check_config
    from usp_mm.engine.checks.config import check_config as now

    assert check_config is now


def test_a_module_inside_a_package_that_moved_may_have_another_name(monkeypatch):
    for older in ('usp_mm.pipeline.own', 'usp_mm.pipeline.plan'):
        monkeypatch.delitem(sys.modules, older, raising=False)
    with pytest.warns(FutureWarning, match='^usp_mm.pipeline.own is now usp_mm.own_pictures.parts: '):
        parts = importlib.import_module('usp_mm.pipeline.own')
    with pytest.warns(FutureWarning, match='^usp_mm.pipeline.plan is now usp_mm.own_pictures.plan: '):
        plan = importlib.import_module('usp_mm.pipeline.plan')
    assert (parts.__name__, plan.__name__) == ('usp_mm.own_pictures.parts', 'usp_mm.own_pictures.plan')


def test_names_of_a_module_that_was_split_are_found_where_they_were(monkeypatch):
    from usp_mm import engine
    from usp_mm.engine import hooks, runner_parts

    assert hooks.StatelessSeedHook is engine.StatelessSeedHook and hooks.BatchNormMeanHook is engine.BatchNormMeanHook
    assert hooks.RestorationHook is engine.RestorationHook
    for name in ('unwrapped', 'resuming', 'built_loops', 'loaders_of', 'datasets_of', 'metrics_of'):
        assert getattr(hooks, name) is getattr(runner_parts, name)
    monkeypatch.delitem(sys.modules, 'usp_mm.engine.settings', raising=False)
    with pytest.warns(FutureWarning, match='^usp_mm.engine.settings is now usp_mm.engine.resuming.run_settings: '):
        settings = importlib.import_module('usp_mm.engine.settings')
    for name in ('by_epoch', 'batch_size', 'wrappers', 'accumulative_counts', 'of_optimizer', 'schedulers_of'):
        assert getattr(settings, name) is getattr(runner_parts, name)


def test_an_older_name_runs_as_a_program():
    done = subprocess.run([sys.executable, '-m', 'usp_mm.torchrun', '--help'], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and '--nproc-per-node' in done.stdout
    assert 'usp_mm.torchrun is now usp_mm.runtime.torchrun: the older name goes in the next release' in done.stderr


def test_other_names_are_still_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'usp_mm.apis.sampler'"):
        importlib.import_module('usp_mm.apis.sampler')


def test_a_module_whose_name_is_a_functions_now_does_not_hide_it():
    code = """
        import warnings
        import usp_mm
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            from usp_mm.checkpoints.convert import SETS, convert
        assert {str(one.message).split(':')[0] for one in caught if one.category is FutureWarning} == {
            'usp_mm.checkpoints.convert is now usp_mm.checkpoints.conversion'
        }
        from usp_mm import checkpoints
        assert checkpoints.convert is convert and SETS == ('ema', 'model')
        try:
            from usp_mm.checkpoints.convert import none_such
        except ImportError as error:
            print(error)
    """
    assert 'none_such' in run_script(code)


FILES = [
    path
    for folder in ('usp_mm', 'tests', 'tools', 'dev', 'configs')
    for path in sorted((ROOT / folder).rglob('*.py'))
    if path.parent.name != 'test_renaming' and not path.is_relative_to(ROOT / 'usp_mm' / 'renaming')
]


def modules_of(path):
    """Modules that a file imports, also on use (`imported_on_use`, with names below the file's package)."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and path.is_relative_to(ROOT / 'usp_mm'):
            package = path.relative_to(ROOT).parts[: -node.level]
            yield '.'.join([*package, *([node.module] if node.module else [])])
            yield from ('.'.join([*package, *([node.module] if node.module else []), alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'imported_on_use':
            package = '.'.join(path.relative_to(ROOT).parts[:-1])
            yield from (importlib.util.resolve_name(f'.{ast.literal_eval(key)}', package) for key in node.args[1].keys)


def test_nothing_of_the_project_imports_an_older_name():
    older = tuple(MOVED)
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in FILES
        for name in modules_of(path)
        if name in MOVED or name.startswith(tuple(f'{each}.' for each in older))
    }
    assert len(FILES) > 700 and not found
