"""dev/benchmark.py gpu, at toy sizes on a CPU, and how its sections end."""

import argparse
import json
from pathlib import Path

import pytest
import torch


@pytest.fixture
def gpu(dev_importable):
    """dev/benchmarks/gpu.py, with dev/ importable."""
    from benchmarks import gpu

    return gpu


@pytest.fixture
def found(gpu):
    """What sections send, and a report of the section 'train' that sends there."""
    from benchmark_gpu.report import Report

    findings = gpu.Findings()
    return findings, lambda section='train': Report(section, findings.take)


@pytest.mark.slow
def test_every_section_runs(tool_here, gpu, tmp_path):
    code, printed = tool_here('dev/benchmark.py', 'gpu', '--cpu-smoke', '--json', tmp_path / 'result.json')
    result = json.loads((tmp_path / 'result.json').read_text())
    assert set(result) == {'hardware', 'arguments', 'rows', 'checks', 'facts', 'seconds', 'failed'}
    assert [(row['what'], row['status']) for row in result['rows'] if row['status'] != 'ok'] == [] == result['failed']
    assert list(dict.fromkeys(row['section'] for row in result['rows'])) == list(gpu.SECTIONS) == list(result['seconds'])
    from benchmark_gpu.report import COLUMNS

    assert all(list(row) == list(COLUMNS) for row in result['rows'])
    assert {'official', 'train', 'compiled', 'sampling', 'runner'} == {
        row['section'] for row in result['rows'] if row['× official']
    }
    timed = [row for row in result['rows'] if row['ms']]
    assert len(timed) == 32 and all(row['images/s'] > 0 and row['peak GiB'] > 0 and row['MFU %'] > 0 for row in timed)
    assert len(result['checks']) == 25 and {check['section'] for check in result['checks']} == {'correctness', 'resume'}
    assert code == 0 and 'failed: []' in printed


@pytest.mark.gpu
def test_a_card_agrees_with_the_cpu(tool_here, tmp_path):
    code, printed = tool_here('dev/benchmark.py', 'gpu', '--only', 'correctness', 'resume', '--json', tmp_path / 'result.json')
    result = json.loads((tmp_path / 'result.json').read_text())
    assert [check for check in result['checks'] if not check['ok']] == [] == result['failed']
    assert {check['section'] for check in result['checks']} == {'correctness', 'resume'} and code == 0, printed


@pytest.mark.slow
def test_a_section_that_fails_crashes_or_hangs_is_a_row(gpu, found):
    from benchmark_gpu.sections import Section
    from benchmark_gpu.worker import run_sections

    findings, _ = found
    names = ('fine', 'fails', 'crashes', 'hangs', 'fine')
    sections = {f'{name} {i}': Section(f'helpers.gpu_sections:{name}', 4) for i, name in enumerate(names)}
    run_sections(sections, toy=True, limit=500, take=findings.take)
    assert [(row['section'], row['what'], row['status']) for row in findings.rows] == [
        ('fine 0', 'half', 'ok'),
        ('fails 1', 'a row', 'MemoryError: no room'),
        ('fails 1', 'the section', 'RuntimeError: out of ideas'),
        ('crashes 2', 'before', 'ok'),
        ('crashes 2', 'the section', 'its process was ended by SIGKILL, perhaps for the memory of the host'),
        ('hangs 3', 'the section', 'stopped after 4 s'),
        ('fine 4', 'half', 'ok'),
    ]
    assert (findings.rows[0]['images/s'], findings.rows[0]['TFLOP/s'], findings.rows[0]['kernels']) == (4.0, 12.0, 7)
    assert findings.facts['toy'] is True and set(findings.seconds) == {'fine 0', 'fine 4'}
    stat = Path('/proc', str(findings.facts['child']), 'stat')  # what it had started has ended too
    assert not stat.is_file() or stat.read_text().split()[2] == 'Z'


def test_no_section_begins_without_time(gpu, found):
    from benchmark_gpu.worker import run_sections

    run_sections(gpu.SECTIONS, toy=True, limit=9, take=found[0].take)
    assert [row['section'] for row in found[0].rows] == list(gpu.SECTIONS)
    assert {row['status'] for row in found[0].rows} == {'not begun: no time is left of 9 s'}


def test_rows_are_compared_with_the_official_loop(gpu, found):
    from benchmark_gpu.facts import MATMUL

    findings, report = found
    report().speed('ours before', 1, 10.0, 1e12, peers='these')
    report('official').row('plain torch', 'OutOfMemoryError: 64', peers='these', batch=64)
    report('official').speed('plain torch', 32, 1000.0, peers='these')
    report().speed('ours', 64, 500.0, 1e12, peers='these')
    report().speed('others', 64, 500.0, 1e12)
    gpu.compare(findings.rows, {MATMUL: 512.0})
    assert [row['× official'] for row in findings.rows] == [None, None, 1.0, 4.0, None]
    assert [row['MFU %'] for row in findings.rows] == [100 * 100 / 512, None, None, 25.0, 25.0]


def test_a_failed_check_is_named(gpu, found):
    findings, report = found
    correct = report('correctness')
    correct.close('same', torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0]), 0.0)
    correct.close('far', torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]), 0.1)
    correct.check('not a number', float('nan'), 0.1)
    correct.row('all', '2 checks failed')
    report('resume').row('the section', 'stopped after 40 s')
    report('train').row('too large', 'OutOfMemoryError')
    assert [(check['name'], check['error'], check['ok']) for check in findings.checks[:2]] == [
        ('same', 0, True),
        ('far', 0.2, False),
    ]
    assert gpu.failures(findings.rows, findings.checks) == [
        'correctness: far, 0.2 instead of 0.1 at most',
        'correctness: not a number, nan instead of 0.1 at most',
        'resume: stopped after 40 s',
    ]


def test_a_failed_check_is_the_exit_code(gpu, tool_here, monkeypatch):
    broken = dict(rows=[dict(section='resume', status='bad')], failed=['resume: bad'])
    monkeypatch.setattr(gpu, 'run', lambda args: broken)
    assert tool_here('tools/benchmark.py', 'gpu')[0] == 1
    monkeypatch.setattr(gpu, 'run', lambda args: {**broken, 'failed': []})
    assert tool_here('tools/benchmark.py', 'gpu')[0] == 0


def test_mistakes_are_one_line(gpu, tool_here, monkeypatch):
    code, printed = tool_here('tools/benchmark.py', 'gpu', '--only', 'vae', '--skip', 'vae')
    assert code == 1 and 'error: --only vae --skip vae leaves no section: leave out one of the two' in printed
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    code, printed = tool_here('tools/benchmark.py', 'gpu')
    assert code == 1 and 'there is no GPU that torch can use: --cpu-smoke runs' in printed


@pytest.mark.parametrize(('mode', 'forward', 'backward'), [('fp32', (109, 20), (91, 40)), ('bf16', (124, 33), (108, 59))])
def test_operations_of_a_step(mode, forward, backward, gpu):
    """Of DiT with so many blocks, in eager mode: a + b · depth."""
    from benchmark_gpu.scale import TINY_ARCH
    from benchmark_gpu.training import dit_operations

    for depth in (2, 3):
        counts = dit_operations({**TINY_ARCH, 'depth': depth}, mode)
        expected = {name: a + b * depth for name, (a, b) in dict(forward=forward, backward=backward).items()}
        assert counts == dict(latents=147, noise=411, **expected)


@pytest.mark.parametrize(('settings', 'expected'), [(dict(fused=True), 2), (dict(foreach=False), 9 * (11 + 10 * 2))])
def test_operations_of_optimizer_and_average(settings, expected, gpu):
    """Of DiT with two blocks: 11 + 10 · depth parameters."""
    from benchmark_gpu.operations import OperationCounter
    from benchmark_gpu.scale import TINY_ARCH
    from benchmark_models import build_model, model_config

    model = build_model(model_config('DiT', {**TINY_ARCH, 'depth': 2}, 'bf16', 64, 10), 'cpu')
    parameters = [parameter for parameter in model.denoiser.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(parameters, **settings)
    optimizer.step()
    with OperationCounter() as counter:
        optimizer.step()
    assert len([name for name in counter.names if name.startswith('aten::') and 'local_scalar' not in name]) == expected
    with OperationCounter() as counter:
        model.update_ema()
    assert counter.names == ['aten::_foreach_lerp_', 'aten::add_']  # weights, and the count of updates


def test_operations_that_launch_nothing_are_not_counted(gpu):
    from benchmark_gpu.operations import OperationCounter

    x = torch.randn(4, 4, requires_grad=True)
    with OperationCounter() as counter:
        (x.t()[:2].reshape(-1).view(2, 4) @ x.detach()).sum().backward()
    assert counter.names[:3] == ['aten::clone', 'aten::mm', 'aten::sum']
    assert 'aten::mm' in counter.names[3:] and not {'aten::t', 'aten::view', 'aten::expand'} & set(counter.names)


def test_what_a_mode_changes_in_a_config(gpu):
    from benchmark_models import model_config

    model = model_config('DiT', 'xl', 'ours bf16 compiled checkpointed').model
    assert (model.denoiser.arch, model.denoiser.with_cp, model.compile) == ('xl', True, 'blocks')
    for mode, wrapper, dtype in (('bf16', 'AutocastOptimWrapper', 'bfloat16'), ('plain fp32', 'OptimWrapper', 'float32')):
        cfg = model_config('SiT', 'tiny', mode, 64, 10)
        assert (cfg.optim_wrapper.type, cfg.model.sample_dtype, cfg.model.compile) == (wrapper, dtype, False)
        assert (cfg.model.denoiser.img_size, cfg.model.denoiser.num_classes) == (64, 10)
    assert model_config('MAE', 'tiny', 'fp32', 64).model.backbone.img_size == 64
    assert model_config('MAE', 'tiny', 'bf16 compiled').model.compile == 'blocks'


def test_only_what_a_module_moves_is_made_on_the_device(gpu):
    from benchmark_models import make_model, model_config

    for name in ('DiT', 'SiT', 'MAE'):
        model = make_model(model_config(name, 'tiny', 'bf16'), 'meta')
        assert {tensor.device.type for tensor in model.parameters()} == {'meta'}
        parts = [*model.modules(), *(getattr(model, part) for part in ('objective', 'sampler', 'guidance') if name != 'MAE')]
        plain = [value for part in parts for value in vars(part).values() if isinstance(value, torch.Tensor)]
        assert len(plain) == (name == 'DiT') and {tensor.device.type for tensor in plain} <= {'cpu'}


def test_official_operations_are_those_of_ours(gpu):
    from benchmark_gpu.baseline import official_flops
    from benchmark_gpu.scale import Scale
    from benchmark_models import flops_of, model_config

    ours = {name: flops_of(model_config(name, arch, 'bf16')) for name, arch in (('DiT', 'xl'), ('MAE', 'xl'))}
    assert [round(ours[name]['train'] / 1e9, 1) for name in ours] == [711.7, 166.6]
    assert official_flops(Scale(toy=False)) == pytest.approx(ours['DiT']['forward'], rel=1e-3)


def test_only_and_skip(gpu, monkeypatch):
    """Sections run in their own order."""
    from benchmark_gpu import worker

    asked = []
    monkeypatch.setattr(worker, 'run_sections', lambda sections, toy, limit, take: asked.append((sections, toy, limit)))
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    gpu.run(parser.parse_args(['--cpu-smoke', '--only', 'vae', 'cache', 'facts', '--skip', 'cache', '--limit', '99']))
    ((sections, toy, limit),) = asked
    assert (list(sections), toy, limit) == (['facts', 'vae'], True, 99.0)
    assert {section.seconds for section in sections.values()} == {99.0}
