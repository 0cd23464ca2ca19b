"""The kill tests' comparison of validations: what is equal, missing, different or logged twice."""

import json
import sys

import pytest
from helpers.small_world import ROOT


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    from kill_parts import compare

    yield compare
    for name in [name for name in sys.modules if name.partition('.')[0] == 'kill_parts']:
        del sys.modules[name]


def log(folder, start, *records):
    path = folder / start / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(f'{json.dumps(record)}\n' for record in records))


def validation(step, score, time=0.1):
    return dict(score=score, time=time, data_time=0.2, step=step)


def test_scores_of_a_killed_run(compare, tmp_path):
    log(tmp_path / 'whole', '20260101_000000', dict(lr=0.1, loss=3.0, step=1), validation(1, 0.5), validation(2, 0.75))
    whole = compare.scores(tmp_path / 'whole')
    assert whole == {'scores at 1': '{"score": 0.5}', 'scores at 2': '{"score": 0.75}'}

    log(tmp_path / 'good', '20260101_000000', validation(1, 0.5))
    log(tmp_path / 'good', '20260101_000007', validation(1, 0.5, time=9.0), validation(2, 0.75))  # cut off
    assert compare.differences(whole, compare.scores(tmp_path / 'good')) == []

    log(tmp_path / 'bad', '20260101_000000', validation(1, 0.5))
    log(tmp_path / 'bad', '20260101_000007', validation(1, 0.25), validation(1, 0.25), validation(3, 0.75))
    found = compare.differences(whole, compare.scores(tmp_path / 'bad'))
    assert [(one.kind, one.told) for one in found] == [
        ('differing', 'scores at 1'),
        ('differing', 'scores at 2 is missing'),
        ('stray', 'scores at 1, 2 times in one log'),
        ('stray', 'scores at 3'),
    ]
