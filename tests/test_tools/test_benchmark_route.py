"""benchmark.py route: the rows, of toy size."""

import argparse
import importlib

import pytest
from helpers.small_world import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'dev')
    return importlib.import_module('benchmarks.route')


def test_ratios_are_those_of_the_rows(benchmark, monkeypatch):
    shipped = benchmark.configs_of

    def small(arch):
        configs = shipped(arch)
        for cfg in configs:
            cfg.model.denoiser.update(arch='tiny', img_size=64)
        configs[1].model.denoiser.route.update(start=1, end=-1)
        return configs

    monkeypatch.setattr(benchmark, 'configs_of', small)
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    plain, routed = benchmark.run(parser.parse_args(['--archs', 'base', '--steps', '1']))['rows']
    assert [row['step'] for row in (plain, routed)] == ['SiT-base/2, all tokens', 'SiT-base/2, routed']
    assert plain['operations ×'] == plain['time ×'] == 1
    assert routed['operations ×'] == routed['GFLOP/image'] / plain['GFLOP/image'] < 0.85
    assert routed['time ×'] == routed['CPU s/step'] / plain['CPU s/step'] > 0
