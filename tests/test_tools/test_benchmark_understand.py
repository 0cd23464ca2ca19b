"""tools/benchmark.py understand, at a size that says nothing about speed."""

import json
from types import SimpleNamespace

import pytest
from helpers.small_world import ROOT, run_tool

COLUMNS = [
    'task', 'network', 'mode', 'size', 'batch', 'ms/step', 'outside %', 'data %', 'once ms/image', 'peak GiB', 'images/s',
    'speed ×', 'same precision ×',
]  # fmt: skip


@pytest.fixture
def understand(dev_importable):
    """dev/benchmarks/understand.py, with dev/ importable."""
    from benchmarks import understand

    return understand


def arguments(**changed):
    given = dict(arch='tiny', large=None, tasks=['probe', 'segment'], dtypes=['fp32', 'bf16'], size=None, batch_size=None)
    return SimpleNamespace(**{**given, 'vae': 'tiny', 'workers': 0, 'steps': 3, 'one_process': False, 'row': None, **changed})


@pytest.mark.slow
def test_the_tool(tmp_path, monkeypatch):
    """Every row but those of bfloat16."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    small = ['--arch', 'tiny', '--size', 64, '--batch-size', 2, '--workers', 0, '--steps', 3]
    options = ['--dtypes', 'fp32', '--one-process', '--json', tmp_path / 'result.json']
    done = run_tool('tools/benchmark.py', 'understand', *small, *options)
    assert done.returncode == 0, done.stderr
    assert 'benchmark understand: cpu' in done.stdout
    result = json.loads((tmp_path / 'result.json').read_text())
    assert set(result) == {'hardware', 'arguments', 'rows', 'data', 'probe of 90 epochs ×'}
    rows = {(row['task'], row['mode']): row for row in result['rows']}
    assert list(rows) == [
        ('probe', 'plain fp32'), ('probe', 'cached latents fp32'), ('probe', 'cached features fp32'),
        ('finetune', 'plain fp32'), ('finetune', 'ours fp32'), ('segment', 'plain fp32'), ('segment', 'ours fp32'),
    ]  # fmt: skip
    for (task, mode), row in rows.items():
        plain = rows[task, 'plain fp32']
        assert list(row) == COLUMNS and (row['network'], row['size'], row['batch']) == ('ViT-tiny', 64, 2)
        assert row['images/s'] == pytest.approx(2000 / row['ms/step']) and row['peak GiB'] > 0
        assert row['speed ×'] == row['same precision ×'] == pytest.approx(plain['ms/step'] / row['ms/step'])
        assert (row['once ms/image'] > 0) == ('cached' in mode)
        if row is not plain:
            assert 0 < row['data %'] <= row['outside %'] < 100
    features, whole = rows['probe', 'cached features fp32'], result['probe of 90 epochs ×']
    assert features['speed ×'] > 3  # measured: 17
    assert set(whole) == {'ViT-tiny cached latents fp32', 'ViT-tiny cached features fp32'}
    assert 1 < whole['ViT-tiny cached features fp32'] < features['speed ×']


def test_bfloat16_of_network_and_vae(understand, monkeypatch):
    """Optimizer wrapper, VAE and frozen blocks are those that a row's name says; one is measured."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))  # takes seconds
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    row = dict(task='finetune', arch='tiny', mode='ours bf16 + VAE', size=32, batch=2)
    built = []
    config = understand.config
    monkeypatch.setattr(understand, 'config', lambda *args: built.append(config(*args)) or built[-1])
    measured = understand.measure(arguments(), **row)
    assert measured['mode'] == 'ours bf16 + VAE' and measured['images/s'] == pytest.approx(2000 / measured['ms/step'])
    (cfg,) = built
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper' and cfg.model.data_preprocessor.vae.dtype == 'bfloat16'
    for mode, wrapper, dtype in (('ours bf16', 'AutocastOptimWrapper', 'float32'), ('ours fp32', 'OptimWrapper', 'float32')):
        cfg = config(arguments(), ROOT, 'segment', 'large', mode, 64, 2)
        assert (cfg.optim_wrapper.type, cfg.model.backbone.vae.dtype) == (wrapper, dtype)
    assert config(arguments(), ROOT, 'probe', 'large', 'plain fp32', 64, 2).model.backbone.frozen_stages == 24


def test_rows_of_a_gpu_and_of_a_cpu(understand):
    sizes = {
        gpu: [(row['task'], row['arch'], row['size'], row['batch']) for row in understand.plan(arguments(arch='base'), gpu)]
        for gpu in (False, True)
    }
    assert sizes[False] == [('probe', 'base', 224, 4)] * 5 + [('segment', 'base', 128, 2)] * 5
    base = [('probe', 'base', 224, 256)] * 5 + [('segment', 'base', 512, 2)] * 5
    assert sizes[True] == base + [(task, 'large', *rest) for task, _, *rest in base]
    modes = [row['mode'] for row in understand.plan(arguments(dtypes=['bf16'], tasks=['probe']), False)]
    assert modes == ['plain bf16', 'cached latents bf16']


def test_what_is_done_once_counts_once_in_90_epochs(understand, monkeypatch):
    """Rows come from fresh processes; 2 ms an image and epoch, or 10 ms once and then 1 or 0.1 ms."""
    asked = []

    def fresh(benchmark, options):
        asked.append((benchmark, options[2:]))
        row = json.loads(options[1])
        ms, once = {'plain': (2, 0.0), 'cached latents': (1, 10.0), 'cached features': (0.1, 10.0)}[row['mode'][:-5]]
        if 'bf16' in row['mode']:
            ms /= 2
        found = {'task': row['task'], 'network': 'ViT-tiny', 'mode': row['mode']}
        return {**found, 'batch': 4, 'ms/step': 4 * ms, 'once ms/image': once}

    monkeypatch.setattr(understand, 'in_fresh_process', fresh)
    result = understand.run(arguments(tasks=['probe'], large=False))
    assert asked == [('understand', ['--vae', 'tiny', '--steps', 3, '--workers', 0])] * 5
    speeds = [(row['speed ×'], row['same precision ×']) for row in result['rows']]
    assert speeds == [(1, 1), (2, 1), (2, 2), (4, 2), (20, 20)]
    assert result['probe of 90 epochs ×'] == {
        'ViT-tiny cached latents fp32': 1.8,
        'ViT-tiny cached latents bf16': round(90 / 55, 3),
        'ViT-tiny cached features fp32': round(180 / 19, 3),
    }


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(arch='bse'), "unknown arch 'bse'.*did you mean 'base'"),
        (dict(steps=2), '--steps 2 must be 3 or more'),
        (dict(batch_size=1), '--batch-size 1 must be 2 or more'),
        (dict(size=100), '--size 100 must be a multiple of 16'),
    ],
)
def test_options_that_can_not_be_measured(wrong, message, understand):
    with pytest.raises(ValueError, match=message):
        understand.run(arguments(**wrong))
