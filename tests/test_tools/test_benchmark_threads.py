"""benchmark.py threads: what each setting is, and how the rows are compared."""

import importlib

import pytest
from helpers.small_world import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'dev')
    return importlib.import_module('benchmarks.threads')


def test_settings_replace_those_of_this_process(benchmark, monkeypatch):
    for name in ('GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'OMP_WAIT_POLICY'):
        monkeypatch.setenv(name, 'own')
    found = {name: benchmark.environment(name, 2) for name in benchmark.SETTINGS}
    shown = ('OMP_NUM_THREADS', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'OMP_WAIT_POLICY')
    assert {name: [env.get(key) for key in shown] for name, env in found.items()} == {
        'default': ['2', '300000', '200', None],
        'ours': ['2', None, None, None],  # left to `import usp_mm`
        'passive': ['2', None, None, 'PASSIVE'],
        'one thread': ['1', None, None, None],
    }


def test_rows_are_compared_within_a_network(benchmark):
    numbers = {('tiny', 'default'): (10.0, 60.0), ('tiny', 'ours'): (9.0, 24.0), ('tiny', 'passive'): (15.0, 20.0)}
    numbers[('base', 'default')] = (100.0, 200.0)
    rows = [
        {'network': network, 'setting': setting, 'idle ms/step': idle, 'busy ms/step': busy}
        for (network, setting), (idle, busy) in numbers.items()
    ]
    benchmark.compare(rows)
    assert [row.get('idle / default') for row in rows] == [1.0, 0.9, 1.5, 1.0]
    assert [row.get('busy / passive') for row in rows] == [3.0, 1.2, 1.0, None]


def test_processes_beside_end_with_the_block(benchmark, monkeypatch):
    started, start = [], benchmark.subprocess.Popen
    monkeypatch.setattr(benchmark.subprocess, 'Popen', lambda *args: started.append(start(*args)) or started[-1])
    with benchmark.beside(2):
        assert [process.poll() for process in started] == [None, None]
    assert [process.poll() for process in started] == [-9, -9]


def test_the_library_that_torch_uses_is_named(benchmark):
    import torch  # noqa: F401

    assert 'omp' in benchmark.library()
