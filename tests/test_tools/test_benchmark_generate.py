"""tools/benchmark.py generate, at a size that says nothing about speed."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers.small_world import run_tool

COLUMNS = [
    'task', 'network', 'mode', 'batch', 'ms/step', 'outside %', 'EMA %', 'calls/step', 'images/s', 'TFLOP/s', 'peak GiB',
]  # fmt: skip


@pytest.fixture
def lib(dev_importable):
    """dev/benchmark_lib.py, with dev/ importable."""
    import benchmark_lib

    return benchmark_lib


@pytest.fixture
def generate(lib):
    from benchmarks import generate

    return generate


@pytest.mark.parametrize('network', ['DiT', 'SiT'])
def test_one_network_call_a_step(network, generate):
    """Of bf16 training, and of the samplers: SDE for SiT, DDPM's for DiT."""
    args = SimpleNamespace(batch_size=1, steps=2, sample_steps=3)
    tasks = {'train': 'ours bf16', 'sample': 'ours fp32'}
    rows = [generate.measure(args, task, network, 'tiny', mode) for task, mode in tasks.items()]
    for row in rows:
        assert list(row) == COLUMNS and row['network'] == f'{network}-tiny/2'
        assert row['calls/step'] == 1 and 0 < row['outside %'] < 100 and row['images/s'] > 0
    train, sample = rows
    assert 0 < train['EMA %'] <= train['outside %'] and sample['EMA %'] == 0
    assert train['images/s'] == pytest.approx(1000 / train['ms/step'])
    assert sample['images/s'] == pytest.approx(1000 / (3 * sample['ms/step']))
    # 4 blocks of width 128 on 256 tokens, forward, and the rest of the network
    blocks = 4 * (2 * 256 * 128 * 128 * 12 + 4 * 256 * 256 * 128)
    per_image = sample['TFLOP/s'] * 1e12 / sample['images/s'] / 3
    assert blocks < per_image < 1.05 * blocks
    assert train['TFLOP/s'] * 1e12 / train['images/s'] == pytest.approx(3 * per_image, rel=0.01)


def test_rows_of_a_gpu_and_of_a_cpu(generate):
    args = SimpleNamespace(arch='base', networks=['SiT'], tasks=['train', 'sample'], modes=['plain fp32'], large=None)
    base = [('train', 'base', 'plain fp32'), ('sample', 'base', 'plain fp32')]
    large = [('train', 'xl', mode) for mode in generate.LARGE_MODES['train']]
    large += [('sample', 'xl', mode) for mode in generate.LARGE_MODES['sample']]
    for gpu, expected in ((False, base), (True, base + large)):
        rows = [(row['task'], row['arch'], row['mode']) for row in generate.plan(args, gpu)]
        assert rows == expected


def test_what_the_plain_loops_of_a_gpu_may_round(generate, lib, monkeypatch):
    """To TF32, as ours and the official scripts."""
    seen = []
    loop = lambda cfg, args, mode: seen.append(torch.backends.cuda.matmul.allow_tf32) or {'ms/step': 1.0}  # noqa: E731
    monkeypatch.setattr(generate, 'plain_training', loop)
    args = SimpleNamespace(batch_size=1, steps=3, sample_steps=3)
    for gpu in (True, False):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda gpu=gpu: gpu)
        monkeypatch.setattr(generate, 'peak_memory', lambda: 0.0)
        generate.measure(args, 'train', 'DiT', 'tiny', 'plain fp32')
    assert seen == [True, False] and not torch.backends.cuda.matmul.allow_tf32


def test_the_clock_waits_for_single_calls_only_while_it_times_them(lib, monkeypatch):
    """Nine iterations of 8 s, as on a GPU: three to warm up, three with timed calls, three in a row."""
    clock_time = [0.0]
    waits = []
    monkeypatch.setattr(lib, 'now', lambda: waits.append(1) or clock_time[0])
    monkeypatch.setattr(lib, 'phases', lambda steps: (3, 6))
    clock = lib.Clock(9)

    def spend(seconds):
        clock_time[0] += seconds

    call = clock.timed('call', spend)
    for i in range(9):
        call(100.0 if i == 0 else 6.0)
        spend(2.0 if i < 6 else 1.0)
        clock.end_iteration()
    assert clock.share('call') == pytest.approx(6 / 8) and clock.counts == {'call': 9}
    assert clock.ms == pytest.approx(7000)
    assert len(waits) == 1 + 6 * 3 + 1
    assert lib.step_ms(lambda: spend(0.5), 9) == pytest.approx(500)


@pytest.mark.slow
def test_the_tool(tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    options = ['--arch', 'tiny', '--networks', 'SiT', '--modes', 'plain fp32', 'ours bf16', '--batch-size', 1]
    short = ['--steps', 3, '--sample-steps', 3, '--json', tmp_path / 'result.json']
    done = run_tool('tools/benchmark.py', 'generate', *options, *short)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'result.json').read_text())
    assert set(result) == {'hardware', 'arguments', 'rows', 'data', 'bf16 matmul TFLOP/s'}
    rows = result['rows']
    assert [(row['task'], row['mode']) for row in rows] == [
        ('train', 'plain fp32'), ('train', 'ours bf16'), ('sample', 'plain fp32'), ('sample', 'ours bf16'),
    ]  # fmt: skip
    assert all(list(row) == [*COLUMNS, 'speed ×', 'MFU %'] and row['calls/step'] == 1 for row in rows)
    for plain, ours in (rows[:2], rows[2:]):
        assert plain['speed ×'] == 1 and ours['speed ×'] == pytest.approx(plain['ms/step'] / ours['ms/step'])
    assert rows[0]['MFU %'] == pytest.approx(100 * rows[0]['TFLOP/s'] / result['bf16 matmul TFLOP/s'])
    assert 'benchmark generate: cpu' in done.stdout
