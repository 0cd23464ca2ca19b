"""Imports point downward only (read with ast, nothing is imported)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / 'usp_mm'
#: From the bottom up; a layer may import itself and those before it.
ORDER = [
    'version', 'renaming', 'presets', 'fileio', 'config', 'images', 'runtime', 'functional', 'registry', 'compat', 'utils',
    'vaes', 'layers', 'datasets', 'models', 'segmentation', 'detection', 'evaluation', 'engine', 'checkpoints', 'sampling',
    'probing', 'analysis', 'apis', 'app', 'own_pictures', 'cli',
]  # fmt: skip
#: The same inside the packages that hold tools for all the others: a module may import itself and those before it.
INSIDE = {
    'renaming': ['arguments', 'placeholders', 'modules', 'lazy'],
    'fileio': ['atomic', 'locks', 'outputs', 'npz', 'checksums', 'addresses', 'weights', 'strict_loading'],
    'config': ['options', 'values', 'data_loaders', 'lookup', 'arguments'],
    'runtime': [
        'threads',
        'processor',
        'console',
        'processes',
        'heartbeat',
        'absent_nodes',
        'machine_errors',
        'command',
        'torchrun',
    ],
}
#: Layers, or modules of them, that import none of OpenMMLab's packages except those named.
PURE = {
    'images': ('mmengine',),
    'functional': (),
    'vaes': ('mmengine.logging',),
    'layers': (),
    'presets': (),
    'renaming': (),
    'config': (),
    'runtime': (),
    'runtime.heartbeat': ('mmengine.logging',),
    'fileio': (),
    'fileio.addresses': ('mmengine.logging',),
    'fileio.weights': ('mmengine.logging',),
    'compat.locations': (),
    'compat.log_noise': (),
    'utils': (),
}


def imported_modules(path):
    package = ['usp_mm', *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = '.'.join([*base, *([node.module] if node.module else [])])
            yield prefix
            if prefix == 'usp_mm':
                yield from (f'usp_mm.{alias.name}' for alias in node.names)


def parts_of(path):
    """Layer and module: ('fileio', 'locks') of usp_mm/fileio/locks.py, ('presets',) of usp_mm/presets.py."""
    return path.relative_to(ROOT).with_suffix('').parts


FILES = [path for path in sorted(ROOT.rglob('*.py')) if path != ROOT / '__init__.py']


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    layer, *inside = parts_of(path)
    allowed = {f'usp_mm.{name}' for name in ORDER[: ORDER.index(layer) + 1]} | {'usp_mm'}
    ours = {'.'.join(m.split('.')[:2]) for m in imported_modules(path) if m.split('.')[0] == 'usp_mm'}
    assert ours <= allowed
    pure = PURE.get('.'.join([layer, *inside[:1]]), PURE.get(layer))
    if pure is not None:
        mm = {m for m in imported_modules(path) if m.split('.')[0].startswith('mm')}
        assert all(m.startswith(pure) for m in mm) if pure else not mm


@pytest.mark.parametrize('package', INSIDE)
def test_imports_inside_a_package_point_downward(package):
    order = INSIDE[package]
    assert {path.stem for path in (ROOT / package).rglob('*.py')} == {'__init__', *order}
    assert set(imported_modules(ROOT / package / '__init__.py')) == set()
    for number, name in enumerate(order):
        allowed = {f'usp_mm.{package}.{one}' for one in order[: number + 1]}
        ours = {m for m in imported_modules(ROOT / package / f'{name}.py') if m.split('.')[:2] == ['usp_mm', package]}
        assert ours <= allowed


def test_what_sets_the_environment_of_torch_is_imported_before_it():
    first = next(node for node in ast.parse((ROOT / '__init__.py').read_text()).body if isinstance(node, ast.ImportFrom))
    assert first.module == 'usp_mm.runtime.threads'
    assert set(imported_modules(ROOT / 'runtime' / 'threads.py')) == {'os', 'sys'}


def test_only_what_others_look_for_at_the_top_lies_there():
    """MMEngine's hub imports `utils`; the version, the presets and the registries are this package's own landmarks."""
    assert {path.stem for path in ROOT.glob('*.py')} == {'__init__', 'presets', 'registry', 'utils', 'version'}


def test_every_module_has_a_docstring():
    assert [str(p) for p in ROOT.rglob('*.py') if not ast.get_docstring(ast.parse(p.read_text()))] == []
