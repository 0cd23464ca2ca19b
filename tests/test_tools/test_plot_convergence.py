"""tools/plot_convergence.py as a user runs it."""

import json

import pytest
from helpers.run_logs import INFO, training, validation, write_curve, write_log
from helpers.small_world import run_tool
from PIL import Image

TOOL = 'tools/plot_convergence.py'


@pytest.fixture
def runs(tmp_path):
    """Two seeds from scratch, the first resumed half-way, and one run that starts from USP."""
    first = [training(100), validation(100, **{'Feature/FD': 40.0})]
    write_log(tmp_path / 's0', first, '20250101_000000')
    second = [training(200), validation(200, **{'Feature/FD': 25.0})]
    write_log(tmp_path / 's0', second, '20250102_000000', {**INFO, 'start_iter': 100})
    write_curve(tmp_path / 's1', {100: 44.0, 200: 23.0, 300: 20.0})
    write_curve(tmp_path / 'u0', {100: 28.0, 200: 20.0})
    return tmp_path


def test_two_arms(runs):
    out, numbers = runs / 'out' / 'fd.png', runs / 'out' / 'fd.json'
    arms = [f'scratch={runs}/s0,{runs}/s1', runs / 'u0']
    done = run_tool(TOOL, *arms, '--labels', 'scratch', 'USP', '--out', out, '--json', numbers)
    assert done.returncode == 0, done.stderr
    assert 'u0' not in done.stdout and 'Feature/FD, lower is better' in done.stdout and 'GPU-hours' in done.stdout
    assert '24 ± 1.4' in done.stdout and '1.33 ×' in done.stdout and 'not reached' in done.stdout
    assert 'lack' in done.stderr or 'lack' in done.stdout  # the third point of the second seed
    assert Image.open(out).size == (1920, 720)
    result = json.loads(numbers.read_text())
    assert (result['metric'], result['lower_is_better'], result['hours']) == ('Feature/FD', True, 'GPU-hours')
    assert [(c['label'], c['steps'], c['values']) for c in result['curves']] == [
        ('scratch', [100, 200], [42.0, 24.0]),
        ('USP', [100, 200], [28.0, 20.0]),
    ]
    missed, found = result['speed_ups']
    assert (found['label'], found['step'], found['other_step'], found['ratio']) == ('USP', 150.0, 200, pytest.approx(4 / 3))
    assert missed['step'] is None and missed['ratio'] is None


@pytest.fixture
def call(tool_here):
    """What the tool prints."""
    return lambda *words: tool_here(TOOL, *words)[1]


def test_another_metric_and_one_panel(runs, call):
    printed = call(runs / 's1', '--metric', 'lr', '--higher-is-better', '--no-gpu-hours', '--out', runs / 'lr.png')
    assert 'lr, higher is better' in printed and 'speed-up' not in printed
    assert Image.open(runs / 'lr.png').size == (960, 720)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--metric', 'lr'], "error: is a low 'lr' good? say --lower-is-better"),
        (['--metric', 'Feature/FID'], "has no metric 'Feature/FID'"),
        (['--labels', 'a'], 'error: --labels has 1 names for 2 RUNs'),
        (['--labels', 'a', 'a'], "error: two RUNs are called 'a'"),
        (['--out', 'curve.abc'], "error: cannot draw 'curve.abc'"),
    ],
)
def test_mistakes(options, message, runs, call):
    assert message in call(runs / 's1', runs / 'u0', *options)
