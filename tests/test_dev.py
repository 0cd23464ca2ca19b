"""The list of decisions that the tests are checked with is up to date, and a wrong one is refused."""

import subprocess
import sys

import pytest
from helpers.small_world import ROOT


@pytest.fixture
def dev(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    for name in ('decisions', 'mutations'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import mutations

    yield mutations
    for name in ('decisions', 'mutations'):
        sys.modules.pop(name, None)


def test_every_decision_stands_once_in_todays_code(dev):
    assert dev.stale(dev.MUTATIONS) == []
    names = [m.name for m in dev.MUTATIONS]
    assert len(names) == len(set(names)) >= 20
    assert all(m.old != m.new and m.tests for m in dev.MUTATIONS)


def test_the_page_has_a_row_for_each(dev):
    rows = [line for line in (ROOT / dev.PAGE).read_text().splitlines() if line.startswith('| ')][1:]
    assert [tuple(row.split(' | ')[:2]) for row in rows] == [(f'| {m.name}', f'`{m.file}`') for m in dev.MUTATIONS]
    assert all(row.split(' | ')[2].startswith('`tests/') for row in rows)  # all caught


def test_what_is_out_of_date_is_named(dev):
    wrong = dev.Mutation('gone', 'setup.py', 'no such text', '', ('tests/test_none.py',))
    twice = dev.Mutation('twice', 'setup.py', 'import', '', ('tests/test_dev.py',))
    found = dev.stale([wrong, twice])
    assert found[0] == 'gone: its text stands 0 times in setup.py' and found[2] == 'gone: no tests/test_none.py'
    assert found[1].startswith('twice: its text stands ') and len(found) == 3


def test_a_change_that_no_test_notices_is_reported(dev, tmp_path):
    (tmp_path / 'maths.py').write_text('def one():\n    return 1\n\ndef two():\n    return 2\n')
    (tmp_path / 'tests').mkdir()
    (tmp_path / 'tests/test_maths.py').write_text('from maths import one\n\n\ndef test_one():\n    assert one() == 1\n')
    tests = ('tests/test_maths.py',)
    noticed = dev.Mutation('one', 'maths.py', 'return 1', 'return 3', tests)
    unnoticed = dev.Mutation('two', 'maths.py', 'return 2', 'return 3', tests)
    broken = dev.Mutation('import', 'maths.py', 'def one():', 'def other():', tests)
    rows = [(m, *dev.try_one(tmp_path, m)) for m in (noticed, unnoticed, broken)]
    assert [(caught, what) for _, caught, what in rows[:1]] == [(True, 'tests/test_maths.py::test_one')]
    assert [caught for _, caught, _ in rows[1:]] == [False, False]  # an error of collection is no failing test
    assert 'return 1' in (tmp_path / 'maths.py').read_text()


def test_rows_of_what_is_not_run_stay(dev):
    one, two, three = (dev.Mutation(name, 'maths.py', 'a', 'b', ('tests/test_maths.py',)) for name in ('1', '2', '3'))
    text = dev.page([one, two, three], {'1': '`tests/test_maths.py::test_one`', '2': '**not caught**'})
    assert '1 of 3 caught' in text and '| 3 | `maths.py` | not run |' in text
    assert dev.read_page(text) == {'1': '`tests/test_maths.py::test_one`', '2': '**not caught**', '3': 'not run'}


def test_recipes_of_scripts_and_tests_are_one(monkeypatch, tmp_path):
    """dev/golden fills weights as tests/helpers/golden.py does, and writes names as names.json has them."""
    from helpers.golden import GOLDEN, NAMES, golden_weight

    monkeypatch.syspath_prepend(str(ROOT / 'dev' / 'golden'))
    from recipe import Recorder

    rec = Recorder(tmp_path, tmp_path, names=NAMES)
    for name, shape in NAMES['usp-dit'].items():
        for deviation in (0.05, 0.1):
            assert rec.weight(name, tuple(shape), deviation).equal(golden_weight(name, tuple(shape), deviation))
    rec.save_names()
    assert (tmp_path / 'names.json').read_bytes() == (GOLDEN / 'names.json').read_bytes()


def test_the_recording_command_says_what_it_needs():
    command = [sys.executable, str(ROOT / 'dev' / 'golden' / 'record.py'), '--help']
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'REF holds checkouts named USP, DiT, SiT, REPA, LightningDiT, guided-diffusion and mae' in told


@pytest.mark.parametrize('script', sorted((ROOT / 'dev').glob('*.sh')), ids=lambda path: path.name)
def test_scripts_are_bash(script):
    assert subprocess.run(['bash', '-n', script], capture_output=True, text=True).stderr == ''
