"""Speed-ups by seed, with answers known by hand."""

import json
import math

import pytest
from helpers.run_logs import write_curve

from usp_mm.analysis.run_log import read_run
from usp_mm.analysis.seed_speed_up import pair_runs, seed_speed_up

TOOL = 'tools/plot_convergence.py'
METRIC = 'denoising_loss'


def runs(folder, curves, seeds=None):
    seeds = seeds if seeds is not None else range(len(curves))
    written = [
        write_curve(folder / f'{i}', points, METRIC, **({} if seed is None else {'seed': seed}))
        for i, (points, seed) in enumerate(zip(curves, seeds, strict=True))
    ]
    return [read_run(path) for path in written]


@pytest.fixture
def arms(tmp_path):
    """The slow runs end at 400 at 1.0, 1.1, 1.2; the fast ones are there at 100, 200 and 250: 4, 2 and 1.6 times as fast."""
    slow = [{100: 3.0, 200: 2.5, 300: 2.0, 400: end} for end in (1.0, 1.1, 1.2)]
    fast = [{100: 1.0, 200: 0.8}, {100: 1.6, 200: 1.1, 300: 0.9}, {100: 2.2, 200: 1.4, 300: 1.0}]
    return ('slow', runs(tmp_path / 'slow', slow)), ('fast', runs(tmp_path / 'fast', fast))


def test_ratios_mean_and_interval(arms):
    slow, fast = arms
    found = seed_speed_up(fast, slow, METRIC, lower=True)
    assert (found.pairs, found.steps, found.reached) == ('seed', (400, 400, 400), (100.0, 200.0, 250.0))
    assert found.values == (1.0, 1.1, 1.2) and found.at_first == (True, False, False)
    assert found.ratios == pytest.approx((4.0, 2.0, 1.6))
    assert found.ratio == pytest.approx((4 * 2 * 1.6) ** (1 / 3))
    logs = [math.log(ratio) for ratio in (4, 2, 1.6)]
    mean = sum(logs) / 3
    error = math.sqrt(sum((log - mean) ** 2 for log in logs) / 2 / 3)
    t = 4.302652729749462  # 97.5 % of Student's distribution with 2 degrees of freedom (any table)
    assert found.interval == pytest.approx((math.exp(mean - t * error), math.exp(mean + t * error)))
    wide = seed_speed_up(fast, slow, METRIC, lower=True, confidence=0.99)
    assert wide.ratio == found.ratio and wide.interval[1] > found.interval[1]
    with pytest.raises(ValueError, match=r'confidence=1.0 must lie between 0 and 1'):
        seed_speed_up(fast, slow, METRIC, lower=True, confidence=1.0)


def test_equal_ratios_have_an_interval_of_no_width(tmp_path):
    slow = ('slow', runs(tmp_path / 'slow', [{100: 2.0, 200: 1.0}, {100: 4.0, 200: 3.0}]))
    fast = ('fast', runs(tmp_path / 'fast', [{100: 1.0, 200: 0.5}, {100: 3.0, 200: 2.0}]))
    found = seed_speed_up(fast, slow, METRIC, lower=True)
    assert found.ratio == pytest.approx(2) and found.interval == pytest.approx((2, 2))


def test_a_value_that_one_run_misses_gives_no_mean(arms):
    slow, fast = arms
    found = seed_speed_up(slow, fast, METRIC, lower=True)
    assert found.reached == (None, None, None) and found.ratio is None and found.interval is None
    single = seed_speed_up(('fast', fast[1][1:2]), ('slow', slow[1][1:2]), METRIC, lower=True)
    assert single.ratio == pytest.approx(2) and single.interval is None


def test_runs_are_paired_by_seed_whatever_their_order(arms, tmp_path):
    slow, fast = arms
    shuffled = ('fast', [fast[1][i] for i in (2, 0, 1)])
    found, straight = (seed_speed_up(arm, slow, METRIC, lower=True) for arm in (shuffled, fast))
    assert found.reached == (250.0, 100.0, 200.0) and found.ratio == pytest.approx(straight.ratio)
    unnamed = [('a', runs(tmp_path / 'a', [{100: 1.0}] * 2, [None] * 2)), ('b', runs(tmp_path / 'b', [{100: 1.0}], [None]))]
    assert pair_runs(unnamed[0], unnamed[0])[0] == 'order'
    with pytest.raises(ValueError, match="'a' and 'b' have 2 and 1 runs without a recorded seed: give equally many"):
        pair_runs(*unnamed)
    with pytest.raises(ValueError, match=r"'fast' and 'b' have seeds \[0, 1, 2\] and \[None\]: give one run of each seed"):
        pair_runs(fast, unnamed[1])
    with pytest.raises(ValueError, match=r'have seeds \[0, 1, 2\] and \[0, 1\]'):
        pair_runs(fast, ('slow', slow[1][:2]))
    with pytest.raises(ValueError, match=r'have seeds \[0, 0\] and \[0, 0\]'):
        pair_runs(('fast', fast[1][:1] * 2), ('slow', slow[1][:1] * 2))


def test_the_tool_says_it(arms, tmp_path, tool_here):
    slow, fast = (','.join(str(run.folder) for run in runs) for _, runs in arms)
    numbers = tmp_path / 'numbers.json'
    words = [f'slow={slow}', f'fast={fast}', '--out', tmp_path / 'curves.png', '--json', numbers, '--confidence', 0.9]
    _, printed = tool_here(TOOL, *words)
    (found,) = (one for one in json.loads(numbers.read_text())['seed_speed_ups'] if one['label'] == 'fast')
    assert found['ratio'] == pytest.approx(12.8 ** (1 / 3)) and found['pairs'] == 'seed'
    low, high = found['interval']
    said = "fast reaches slow's last denoising_loss in at least 2.34 times fewer steps"
    assert f'{said} (90 % interval {low:.2f} to {high:.2f}, 3 pairs of runs by seed)' in printed
    assert "slow does not reach fast's last denoising_loss in 3 of 3 runs" in printed
    assert 'denoising_loss, lower is better' in printed
    _, printed = tool_here(TOOL, f'slow={slow}', f'fast={fast.rpartition(",")[0]}', '--out', tmp_path / 'curves.png')
    assert "no comparison by seed: the runs of 'slow' and 'fast' have seeds [0, 1, 2] and [0, 1]" in printed
