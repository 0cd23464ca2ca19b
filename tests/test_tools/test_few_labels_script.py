"""dev/few_labels.py: its table and files, and a run of seconds."""

import csv
import json
import sys

import pytest
from helpers.small_world import ROOT, run_tool
from PIL import Image


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    from few_labels_parts import report

    yield report
    for name in [name for name in sys.modules if name.split('.')[0] == 'few_labels_parts']:
        sys.modules.pop(name)


def rows(accuracies, **facts):
    """Rows of (seed, draw, accuracy)."""
    common = {'data': 'digits', 'arm': 'USP', 'score': 'probe', 'labels_per_class': 1, **facts}
    return [dict(common, seed=seed, labels_seed=draw, accuracy=accuracy) for seed, draw, accuracy in accuracies]


def test_draws_are_averaged_before_seeds(report):
    found = rows([(0, 0, 10.0), (0, 1, 20.0), (1, 10, 40.0), (1, 11, 50.0), (2, 20, 60.0), (2, 21, 90.0)])
    others = [
        *rows([(0, 0, 99.0)], arm='pixel MAE'),
        *rows([(0, 0, 98.0)], labels_per_class=2),
        *rows([(0, 0, 97.0)], score='k-NN'),
    ]
    assert report.summary([*others, *found], 'digits', 'USP', 'probe', 1) == [15.0, 45.0, 75.0]
    assert report.cell([15.0, 45.0, 75.0]) == '45.0 ± 30.0'
    assert [report.cell(some) for some in ([], [12.34], [10.0, 20.0])] == ['not run', '12.3 (1 seed)', '15.0 ± 7.1 (2 seeds)']


def test_the_table_marks_what_is_not_run(report, tmp_path):
    found = rows([(seed, seed, 50.0 + seed) for seed in range(3)])
    lines = report.table(found, ['digits'], [1, 50]).splitlines()
    assert lines[0] == '| data, score | arm | 1 | 50 |' and len(lines) == 2 + 3 * 4
    assert lines[2] == '| digits, probe | USP | 51.0 ± 1.0 | not run |'
    assert [line for line in lines[2:] if 'not run | not run' not in line] == [lines[2]]
    report.write_report(tmp_path, found, ['digits'], [1, 50], dict(cpu='x'))
    assert json.loads((tmp_path / 'summary.json').read_text()) == dict(cpu='x', numbers=[1, 50], runs=found)
    with (tmp_path / 'runs.csv').open() as file:
        assert [(row['seed'], row['accuracy']) for row in csv.DictReader(file)] == [('0', '50.0'), ('1', '51.0'), ('2', '52.0')]
    assert Image.open(tmp_path / 'curves.png').size == (340, 300)


def test_epochs_are_the_fewest_with_enough_steps(report):
    from few_labels_parts.scores import epochs_for

    assert epochs_for(200, 10) == (10, 200)
    assert epochs_for(200, 100) == (64, 200)  # one whole batch an epoch
    assert epochs_for(200, 500) == (64, 29)  # of seven steps


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--data', 'faces'], "--data: unknown data 'faces'"),
        (['--scores', 'probe,knn'], "--scores: unknown scores 'knn'"),
        (['--seeds', 0], '--seeds 0 must be at least 1'),
    ],
)
def test_unknown_words_are_refused(words, message):
    done = run_tool('dev/few_labels.py', *words)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.slow
def test_a_small_run_and_a_second_call(tmp_path):
    words = ['--small', '--data', 'digits', '--work-dir', tmp_path]
    done = run_tool('dev/few_labels.py', *words)
    assert done.returncode == 0, done.stderr
    with (tmp_path / 'runs.csv').open() as file:
        found = list(csv.DictReader(file))
    arms = ['USP', 'pixel MAE', 'random, latents', 'random, pixels']
    expected = {(arm, score, n) for arm in arms for score in ('probe', 'k-NN', 'fine-tuning') for n in ('1', '2')}
    assert len(found) == 24 and {(row['arm'], row['score'], row['labels_per_class']) for row in found} == expected
    assert all(0 <= float(row['accuracy']) <= 100 and row['labels_seed'] == '0' for row in found)
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert set(summary['cpu_seconds']['digits']) == {'inputs', *(f'{arm}, seed 0' for arm in arms)}
    assert summary['cpu_seconds']['digits']['USP, seed 0'].keys() >= {
        'pretraining',
        'features, probe and k-NN',
        'fine-tuning, 1',
    }
    assert Image.open(tmp_path / 'curves.png').width == 1020
    checkpoint = next(tmp_path.glob('digits/USP-seed0/pretrain/epoch_2.pth'))
    before = checkpoint.stat().st_mtime_ns
    again = run_tool('dev/few_labels.py', *words)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / 'summary.json').read_text()) == summary and checkpoint.stat().st_mtime_ns == before
    other = run_tool('dev/few_labels.py', '--data', 'digits', '--work-dir', tmp_path)
    assert other.returncode == 1 and 'is of a run with --small: name another --work-dir' in other.stderr
