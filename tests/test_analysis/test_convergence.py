"""Logs, curves and speed-ups with answers known by hand."""

import numpy as np
import pytest
from helpers.run_logs import INFO, training, validation, write_curve, write_log
from matplotlib.figure import Figure
from PIL import Image

from usp_mm.analysis.convergence import Curve, curve, draw_convergence, lower_is_better, reach, readable_ticks, speed_up
from usp_mm.analysis.cost import run_cost, total_cost
from usp_mm.analysis.run_log import read_run


def fd(*points):
    return validation(points[0], **{'Feature/FD': points[1]})


def test_times_and_metrics_of_one_part(tmp_path):
    run = read_run(write_log(tmp_path, [training(100), training(200, time=0.25), fd(200, 9.0)]))
    np.testing.assert_array_equal(run.steps, [100, 200])
    np.testing.assert_allclose(run.seconds, [50, 75])
    np.testing.assert_allclose(run.process_seconds, [200, 300])
    np.testing.assert_array_equal(run.samples, [3200, 6400])
    assert [column.tolist() for column in run.metric('Feature/FD')] == [[200], [9.0]]
    assert [column.tolist() for column in run.metric('loss')] == [[100, 200], [0.01, 0.005]]
    np.testing.assert_allclose(run.at('seconds', [0, 50, 150, 200, 220]), [0, 25, 62.5, 75, 80])
    with pytest.raises(ValueError, match=r"no metric 'Feature/FID': it logged \['Feature/FD', 'loss', 'lr'\]; did you mean"):
        run.metric('Feature/FID')


def test_the_end_of_a_validation_is_not_training_time(tmp_path):
    """The first iteration after one waits for the metrics: 40 s here, 4 s in each mean of 10 that contains it."""
    records = [training(s) for s in (10, 20)] + [fd(20, 9.0), training(25, 4.5, 4.1), training(30, 4.5, 4.1), training(35)]
    np.testing.assert_allclose(read_run(write_log(tmp_path / 'a', records)).seconds, [5, 10, 12.5, 15, 17.5])
    # a slow loader is none: no validation stands before it
    slow = [training(10), training(20, 4.5, 4.1), training(30)]
    np.testing.assert_allclose(read_run(write_log(tmp_path / 'b', slow)).seconds, [5, 50, 55])
    # a loop over epochs starts its own clock after each validation
    epochs = [training(10), validation(1, acc=1.0), training(20, 4.5, 4.1)]
    run = read_run(write_log(tmp_path / 'c', epochs, info={**INFO, 'iters_per_epoch': 10}))
    np.testing.assert_allclose(run.seconds, [5, 50])
    assert run.metric('acc')[0].tolist() == [10]


def test_a_resumed_run_counts_from_where_it_was_resumed(tmp_path):
    """Killed at 460, resumed at 300 with two processes, killed before it came as far, resumed at 300 once more."""
    first = [training(s) for s in (100, 200)] + [fd(200, 9.0), training(300), training(400), fd(400, 7.0)]
    write_log(tmp_path, first, '20250101_000000')
    write_log(tmp_path, [training(400, 9.0)], '20250101_000001', {**INFO, 'start_iter': 300})
    last = [training(400, 1.0), fd(400, 6.5), training(500, 1.0)]
    write_log(tmp_path, last, '20250102_000000', {**INFO, 'start_iter': 300, 'world_size': 2})
    write_log(tmp_path, [], '20250103_000000', {**INFO, 'start_iter': 500})  # killed before it logged anything
    run = read_run(tmp_path)
    assert run.steps.tolist() == [100, 200, 300, 400, 500]
    np.testing.assert_allclose(run.seconds, [50, 100, 150, 250, 350])
    np.testing.assert_allclose(run.process_seconds, [200, 400, 600, 800, 1000])
    np.testing.assert_array_equal(run.samples, [3200, 6400, 9600, 11200, 12800])
    assert [column.tolist() for column in run.metric('Feature/FD')] == [[200, 400], [9.0, 6.5]]


def test_a_run_begun_anew_replaces_the_earlier_one(tmp_path):
    write_log(tmp_path, [training(100), fd(100, 1.0), training(200), fd(200, 0.5)], '20250101_000000')
    write_log(tmp_path, [training(100), fd(100, 2.0)], '20250102_000000')
    run = read_run(tmp_path)
    assert run.steps.tolist() == [100] and [c.tolist() for c in run.metric('Feature/FD')] == [[100], [2.0]]
    # and the earlier one counts again once it, not the new one, is resumed
    write_log(tmp_path, [training(300)], '20250103_000000', {**INFO, 'start_iter': 200})
    run = read_run(tmp_path)
    assert run.steps.tolist() == [100, 200, 300] and run.metric('Feature/FD')[1].tolist() == [1.0, 0.5]


def test_logs_without_run_info_and_with_a_last_line_cut_off(tmp_path):
    write_log(tmp_path, [training(100), training(200), training(300)], '20250101_000000', None)
    path = write_log(tmp_path, [training(300, 1.0), fd(300, 5.0)], '20250102_000000', None)
    with (path / '20250102_000000' / 'vis_data' / 'scalars.json').open('a') as file:
        file.write('{"lr": 0.1, "lo')
    run = read_run(tmp_path)
    np.testing.assert_allclose(run.seconds, [50, 100, 200])
    np.testing.assert_array_equal(run.process_seconds, run.seconds)
    assert np.isnan(run.samples).all() and run.metric('Feature/FD')[0].tolist() == [300]
    with pytest.raises(ValueError, match=r'has no run_info\.json'):
        run_cost(run)


def test_logs_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match='no work folder at'):
        read_run(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no training log in'):
        read_run(tmp_path)
    broken = write_log(tmp_path / 'broken', [training(100), training(200)])
    path = broken / '20250101_000000' / 'vis_data' / 'scalars.json'
    path.write_text('{"a\n' + path.read_text())
    with pytest.raises(ValueError, match=r"scalars\.json' line 1 is not JSON"):
        read_run(broken)
    by_epoch = write_log(tmp_path / 'by_epoch', [training(100), fd(0, 9.0)])
    with pytest.raises(ValueError, match=r'at step 0 after training step 100, so by epoch.*log_metric_by_epoch=False'):
        read_run(by_epoch)


SCRATCH = {100: 40.0, 200: 30.0, 300: 25.0, 400: 24.0, 500: 26.0}
USP = {100: 34.0, 200: 26.0, 300: 18.0, 400: 15.0, 500: 14.0}


@pytest.fixture
def arms(tmp_path):
    scratch, usp = write_curve(tmp_path / 'scratch', SCRATCH), write_curve(tmp_path / 'usp', USP)
    return [curve(path.name, [read_run(path)], 'Feature/FD') for path in (scratch, usp)]


def test_speed_up_between_measured_points(arms):
    """Scratch is best, 24, at 400; USP passes 24 a quarter of the way from 26 at 200 to 18 at 300."""
    scratch, usp = arms
    found = speed_up(usp, scratch, lower=True)
    assert (found.value, found.other_step, found.step, found.at_first) == (24.0, 400, 225.0, False)
    assert found.ratio == pytest.approx(400 / 225) and found.hours_ratio == pytest.approx(400 / 225)
    assert found.other_hours == pytest.approx(400 * 0.5 * 4 / 3600)
    missed = speed_up(scratch, usp, lower=True)
    assert (missed.value, missed.step, missed.ratio, missed.hours_ratio) == (14.0, None, None, None)


def test_reaching_at_once_exactly_and_upward(arms):
    scratch, usp = arms
    assert reach(usp, 35.0, lower=True) == 100 and reach(usp, 26.0, lower=True) == 200
    assert reach(usp, 13.9, lower=True) is None
    assert reach(scratch, 25.0, lower=False) == 100
    assert reach(usp, 34.1, lower=False) is None
    rising = type(usp)('up', usp.steps, -usp.values, usp.deviation, usp.hours, 1)
    assert reach(rising, -24.0, lower=False) == 225
    assert speed_up(usp, type(usp)('flat', usp.steps, usp.values * 0 + 34, usp.deviation, usp.hours, 1), True).at_first


def test_seeds_become_mean_and_deviation_at_common_steps(tmp_path):
    runs = [
        read_run(write_curve(tmp_path / 'a', {100: 10.0, 200: 6.0})),
        read_run(write_curve(tmp_path / 'b', {100: 14.0, 200: 8.0, 300: 1.0}, world_size=8)),
    ]
    mean = curve('usp', runs, 'Feature/FD')
    assert mean.steps.tolist() == [100, 200] and mean.values.tolist() == [12.0, 7.0] and mean.runs == 2
    np.testing.assert_allclose(mean.deviation, [8**0.5, 2**0.5])
    np.testing.assert_allclose(mean.hours, [50 * 6 / 3600, 100 * 6 / 3600])
    other = read_run(write_curve(tmp_path / 'c', {400: 1.0}))
    with pytest.raises(ValueError, match="the runs of 'usp' have 'Feature/FD' at no common step"):
        curve('usp', [*runs, other], 'Feature/FD')


def test_which_way_is_better():
    assert lower_is_better('ADM/FID') and lower_is_better('Feature/FD') and lower_is_better('loss')
    assert not lower_is_better('ADM/IS') and not lower_is_better('accuracy/top1')
    with pytest.raises(ValueError, match="is a low 'lr' good"):
        lower_is_better('lr')


def test_the_picture(arms, tmp_path):
    draw_convergence(arms, 'Feature/FD', tmp_path / 'a' / 'both.png')
    draw_convergence(arms, 'Feature/FD', tmp_path / 'one.png', hours=None)
    draw_convergence(arms, 'Feature/FD', tmp_path / 'a' / 'log.png', hours=None, log=True)
    assert (tmp_path / 'a' / 'log.png').read_bytes() != (tmp_path / 'one.png').read_bytes()
    both, one = (Image.open(tmp_path / name) for name in ('a/both.png', 'one.png'))
    assert both.size == (1920, 720) and one.size == (960, 720)
    assert len(set(both.convert('RGB').getdata())) > 50
    with pytest.raises(ValueError, match=r"cannot draw '.*\.foo': its suffix must be one of \["):
        draw_convergence(arms, 'Feature/FD', tmp_path / 'a.foo')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'one.png', 'scratch', 'usp']


def test_cost_of_runs_and_of_their_beginnings(tmp_path):
    run = read_run(write_curve(tmp_path / 'usp', {1000: 1.0}))
    cost = run_cost(run)
    expected = {'steps': 1000, 'samples': 32000, 'samples/s': 64.0, 'hours': 500 / 3600, 'GPU-days': 2000 / 86400,
                'GFLOP/sample': 3.0, 'EFLOP': 32000 * 3e9 / 1e18}  # fmt: skip
    assert {key: cost[key] for key in expected} == pytest.approx(expected)
    assert (cost['run'], cost['stage'], cost['device']) == ('usp', 'generation', '4 × H200')
    part = run_cost(run, 250)
    assert part['samples'] == 8000 and part['hours'] == pytest.approx(125 / 3600)
    with pytest.raises(ValueError, match='the cost of 1001 steps is asked for, the log has 1000'):
        run_cost(run, 1001)
    total = total_cost([cost, part])
    assert total['samples'] == 40000 and total['EFLOP'] == pytest.approx(40000 * 3e9 / 1e18)
    uncounted = run_cost(read_run(write_curve(tmp_path / 'other', {1000: 1.0}, train_flops_per_sample=None)))
    assert uncounted['EFLOP'] is None and total_cost([cost, uncounted])['EFLOP'] is None


def test_ticks_are_plain_numbers_in_a_narrow_and_in_a_wide_range(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *_, **__: (figure.canvas.draw(), figures.append(figure)))
    steps = np.array([50_000, 400_000])
    for values in ([16.0, 8.0], [200.0, 6.0]):
        curve = Curve('arm', steps, np.array(values), np.zeros(2), steps / 1000, 1)
        draw_convergence([curve], 'FID', tmp_path / 'curves.png', log=True)
        panel, low, high = figures[-1].axes[0], min(values), max(values)
        shown = [float(tick.get_text()) for tick in panel.get_yticklabels() if low <= tick.get_position()[1] <= high]
        assert len(shown) >= 3 and '400k' in [tick.get_text() for tick in panel.get_xticklabels()]
        assert (panel.get_xlabel(), panel.get_ylabel()) == ('training iterations', 'FID')


@pytest.mark.parametrize(
    ('values', 'metric', 'ticks'),
    [
        ([100, 100, 100], 'accuracy/top1', ['95', '96', '97', '98', '99', '100']),
        ([40, 90, 100], 'mIoU', ['40', '50', '60', '70', '80', '90', '100']),
        ([0, 0, 0], 'accuracy/top1', ['0.00', '0.01', '0.02', '0.03', '0.04', '0.05']),
        ([99.99991, 99.99992, 99.99993], 'Feature/FD', [f'{99.99991 + i * 2.5e-6:.7f}' for i in range(9)]),
    ],
)
def test_ticks_are_plain_and_a_percentage_ends_at_100(values, metric, ticks):
    figure = Figure()
    panel = figure.add_subplot()
    panel.plot([1, 2, 3], values)
    readable_ticks(panel, metric)
    low, high = panel.get_ylim()
    places = [place for place in panel.yaxis.get_majorticklocs() if low <= place <= high]
    assert panel.yaxis.get_major_formatter().format_ticks(places) == ticks
