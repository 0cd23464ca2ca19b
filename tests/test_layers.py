"""Imports point downward only (read with ast, nothing is imported)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / 'usp_mm'
#: From the bottom up; a layer may import itself and those before it.
ORDER = [
    'threads', 'version', 'renamed', 'processor', 'locations', 'log_noise', 'batches', 'placeholders', 'moved', 'lazy',
    'processes', 'heartbeat', 'absent_nodes', 'presets', 'options', 'files', 'machine_errors', 'locks', 'checksums',
    'npz_files', 'addresses', 'images', 'weight_files', 'strict_loading', 'config_files', 'cfg_values', 'arguments', 'outputs',
    'console', 'command', 'torchrun', 'functional', 'registry', 'compat', 'utils', 'mmagic_samples', 'vaes', 'layers',
    'datasets', 'models', 'segmentation', 'evaluation', 'engine', 'checkpoints', 'sampling', 'probing', 'analysis', 'apis',
    'app', 'pipeline', 'cli',
]  # fmt: skip
PURE = {
    'images': ('mmengine',),
    'functional': (),
    'vaes': ('mmengine.logging',),
    'layers': (),
    'presets': (),
    'options': (),
    'processor': (),
    'arguments': (),
    'locations': (),
    'log_noise': (),
    'batches': (),
    'placeholders': (),
    'lazy': (),
    'files': (),
    'machine_errors': (),
    'locks': (),
    'checksums': (),
    'npz_files': (),
    'addresses': ('mmengine.logging',),
    'heartbeat': ('mmengine.logging',),
    'absent_nodes': (),
    'weight_files': ('mmengine.logging',),
    'strict_loading': (),
    'config_files': (),
    'utils': (),
    'cfg_values': (),
    'outputs': (),
    'command': (),
    'torchrun': (),
    'processes': (),
    'threads': (),
    'moved': (),
    'renamed': (),
    'console': (),
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


def layer_of(path):
    return path.relative_to(ROOT).with_suffix('').parts[0]


FILES = [path for path in sorted(ROOT.rglob('*.py')) if path != ROOT / '__init__.py']


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    layer = layer_of(path)
    allowed = {f'usp_mm.{name}' for name in ORDER[: ORDER.index(layer) + 1]} | {'usp_mm'}
    ours = {'.'.join(m.split('.')[:2]) for m in imported_modules(path) if m.split('.')[0] == 'usp_mm'}
    assert ours <= allowed
    if layer in PURE:
        mm = {m for m in imported_modules(path) if m.split('.')[0].startswith('mm')}
        assert all(m.startswith(PURE[layer]) for m in mm) if PURE[layer] else not mm


def test_what_sets_the_environment_of_torch_is_imported_before_it():
    first = next(node for node in ast.parse((ROOT / '__init__.py').read_text()).body if isinstance(node, ast.ImportFrom))
    assert first.module == 'usp_mm.threads'
    assert set(imported_modules(ROOT / 'threads.py')) == {'os', 'sys'}


def test_every_module_has_a_docstring():
    assert [str(p) for p in ROOT.rglob('*.py') if not ast.get_docstring(ast.parse(p.read_text()))] == []
