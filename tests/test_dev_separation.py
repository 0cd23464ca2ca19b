"""dev/denoising_separation.py: its statistics, and arguments that make no sense."""

import importlib
import sys

import pytest
from helpers.small_world import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    yield importlib.import_module('denoising_separation')
    sys.modules.pop('denoising_separation')


def test_differences_over_seeds(script):
    """Differences 1, 2 and 3: their standard error is 1/√3, and the two-sided p of t = 2√3 with 2 degrees of freedom 0.0742."""
    found = script.summary([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found['mean'] == 2 and found['standard_error'] == pytest.approx(3**-0.5)
    assert found['t'] == pytest.approx(2 * 3**0.5) and found['p'] == pytest.approx(0.0742, abs=1e-4)
    assert found['deviation_over_seeds'] == 1


@pytest.mark.parametrize('options', [['--seeds', '1'], ['--share', '0.0001'], ['--share', '0.3']])
def test_what_has_no_answer(script, options, monkeypatch, tmp_path):
    monkeypatch.setattr('sys.argv', ['denoising_separation.py', str(tmp_path), *options])
    with pytest.raises(SystemExit, match='give 2 seeds or more, and a share of the steps that divides them'):
        script.main()
    assert list(tmp_path.iterdir()) == []
