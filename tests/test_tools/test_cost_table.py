"""tools/cost_table.py as a user runs it."""

import json

import pytest
from helpers.run_logs import training, write_curve, write_log
from helpers.small_world import run_tool

TOOL = 'tools/cost_table.py'


def test_two_stages(tmp_path):
    pretraining = dict(stage='pretraining', config='usp.py', world_size=2, batch_size=64)
    usp = write_curve(tmp_path / 'usp', {2000: 1.0}, **pretraining)
    sit = write_curve(tmp_path / 'sit', {1000: 1.0})
    out = tmp_path / 'out' / 'cost.json'
    done = run_tool(TOOL, usp, f'{sit}@500', '--markdown', '--json', out)
    assert done.returncode == 0, done.stderr
    head, _, first, second, total = ([c.strip() for c in line.strip('|').split('|')] for line in done.stdout.splitlines())
    assert head == [
        'run', 'stage', 'config', 'device', 'steps', 'samples', 'samples/s', 'hours', 'GFLOP/sample', 'EFLOP', 'GPU-days',
    ]  # fmt: skip
    assert first[:9] == ['usp', 'pretraining', 'usp.py', '2 × H200', '2,000', '256,000', '256', '0.278', '3']
    assert second[:9] == ['sit', 'generation', 'sit.py', '4 × H200', '500', '16,000', '64', '0.0694', '3']
    assert total[:6] == ['total', '', '', '', '2,500', '272,000'] and total[7] == '0.347' and total[10] == '0.0347'
    result = json.loads(out.read_text())
    assert result['total']['GPU-days'] == pytest.approx((2 * 1000 + 4 * 250) / 86400)
    assert result['total']['EFLOP'] == pytest.approx(272000 * 3e9 / 1e18)


def test_table_and_mistakes(tmp_path, tool_here):
    def call(*words):
        return tool_here(TOOL, *words)[1]

    uncounted = write_curve(tmp_path / 'usp', {2000: 1.0}, train_flops_per_sample=None)
    table = call(uncounted)
    assert 'training cost' in table and 'total' in table and table.count('unknown') == 3
    assert "error: no work folder at '" in call(tmp_path / 'none')
    old = write_log(tmp_path / 'old', [training(100)], info=None)
    assert 'has no run_info.json, which says how many processes ran' in call(f'{old}@50')
    assert 'the cost of 2100 steps is asked for, the log has 2000' in call(f'{uncounted}@2100')
