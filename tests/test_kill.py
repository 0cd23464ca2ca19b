"""Runs that were killed are resumed, end like those left alone and leave nothing over; and the tool that says so can say no.

`python dev/kill.py WORK` kills more scenarios, at more moments.
"""

import re
import sys

import pytest
from helpers.python_scripts import run_script
from helpers.small_world import ROOT, run_tool


@pytest.mark.slow
def test_killed_before_changes_of_the_file_system(tmp_path):
    """Three kills each of a pretraining and of a cache, at the numbers of changes that the seed draws."""
    words = ('--scenarios', 'pretrain,cache', '--modes', 'steps', '--kills', '3')
    result = run_tool('dev/kill.py', tmp_path, *words)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    rows = re.findall(r'^(pretrain|cache) +steps +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) ', result.stdout, re.MULTILINE)
    assert rows == [('pretrain', '3', '3', '0', '0', '0'), ('cache', '3', '3', '0', '0', '0')]
    assert result.stdout.splitlines()[-1] == '6 kills, 0 deviations'


CARELESS = """
import os, sys
from pathlib import Path

folder = Path(sys.argv[1])
if (folder / 'whole').exists():
    raise SystemExit('it is there')
partial = folder / f'partial-{os.getpid()}'
with open(partial, 'w') as file:
    file.write('a')
with open(folder / 'appended', 'a') as file:
    file.write('b')
partial.rename(folder / 'whole')
os.mkdir(folder / 'late')
"""

CAMPAIGN = """
import sys
from pathlib import Path
from kill_parts.campaign import Campaign
from kill_parts.scenarios import Scenario

folder = Path({folder!r})
campaign = Campaign(folder / 'work')
campaign.steps(Scenario('careless', str(folder / 'tool.py'), ('@',)), 0)
"""


def test_what_a_careless_tool_leaves(tmp_path):
    """It tidies nothing up, appends twice, and can't be started again once its file is there: each kill shows."""
    (tmp_path / 'tool.py').write_text(CARELESS)
    *told, row = run_script(CAMPAIGN.format(folder=str(tmp_path)), ROOT / 'dev').splitlines()
    assert re.match(r'careless +steps +6 +6 +1 +2 +4 ', row)
    found = [
        re.sub(r'\d{3,}', 'N', line.replace(str(tmp_path / 'work'), '').partition('killed before change ')[2]) for line in told
    ]
    assert found == [
        '2: opened /careless/partial-N: stray: partial-N',
        '3: open /careless/appended: stray: partial-N',
        '4: opened /careless/appended: stray: partial-N',
        '5: os.rename /careless/partial-N: differing: appended',
        '5: os.rename /careless/partial-N: stray: partial-N',
        '6: os.mkdir /careless/late: not resumable: exit code 1: it is there',
        '6: os.mkdir /careless/late: differing: late is missing',
    ]


def test_comparison(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    try:
        from kill_parts.compare import differences, tensor_digest

        found = differences(dict(a='1', b='2', c='3'), dict(a='1', b='4', d='5'))
        assert [tuple(deviation) for deviation in found] == [('differing', 'b'), ('differing', 'c is missing'), ('stray', 'd')]
        import torch

        state = dict(state_dict=dict(w=torch.ones(2)), message_hub=dict(time=1), meta=dict(iter=3, time='now'))
        same = dict(state, message_hub=dict(time=2), meta=dict(iter=3, time='later'))
        assert tensor_digest(state) == tensor_digest(same)
        for other in (dict(state_dict=dict(w=torch.tensor([1.0, -1.0]))), dict(meta=dict(iter=4)), dict(optimizer=0)):
            assert tensor_digest(dict(state, **other)) != tensor_digest(state)
    finally:
        for name in [name for name in sys.modules if name.split('.')[0] == 'kill_parts']:
            del sys.modules[name]
