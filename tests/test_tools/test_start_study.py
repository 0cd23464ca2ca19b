"""dev/start_study.py: its arms, records and tables, and runs of seconds."""

import json
import re
import sys

import pytest
from helpers.small_world import ROOT, load_leaf, run_tool
from PIL import Image

import usp_mm
from usp_mm.config.options import DemoEmoji
from usp_mm.datasets.demo_emoji import make_demo_emoji

KEYS = {
    'family', 'size', 'arm', 'seed', 'teacher_seed', 'steps', 'batch_size', 'at', 'losses', 'seconds_per_step', 'cpu_seconds',
    'processor', 'clock', 'threads', 'torch', 'commit',
}  # fmt: skip
FD_KEYS = {'fd', 'fd_commit'}


@pytest.fixture
def dev(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    yield
    for name in [name for name in sys.modules if name.split('.')[0] in ('start_study', 'start_study_parts')]:
        sys.modules.pop(name)


@pytest.fixture
def arms(dev):
    from start_study_parts import arms

    return arms


@pytest.fixture
def report(dev):
    from start_study_parts import report

    return report


def record(arm, seed, losses, seconds=0.1, **facts):
    """A record by hand: an evaluation every 10 steps."""
    at = [10 * (i + 1) for i in range(len(losses))]
    common = dict(family='sit', size='tiny', teacher_seed=None, steps=at[-1], batch_size=32, cpu_seconds=1.0, processor='x')
    common |= dict(clock='CPU', threads=1, torch='2', commit='abc')
    return {**common, **dict(arm=arm, seed=seed, at=at, losses=losses, seconds_per_step=seconds), **facts}


#: Scratch ends at a loss of 1 after 40 steps; USP is there after 20, 20 and 10 steps, so 2, 2 and 4 times sooner.
SCRATCH = [record('scratch', seed, [4.0, 3.0, 2.0, 1.0]) for seed in range(3)]
USP = [record('usp', seed, [2.0, 1.0, 0.9, 0.8], 0.2) for seed in (0, 1)] + [record('usp', 2, [1.0, 0.9, 0.8, 0.7], 0.2)]
BY_SEED = [{run['seed']: run for run in runs} for runs in (USP, SCRATCH)]


def test_the_speed_up_over_seeds(report):
    """The logarithms are ln 2, ln 2, ln 4: mean 4/3 ln 2, deviation ln 2 / √3, and t of 2 degrees of freedom 4.3027."""
    found = report.speed_up(*BY_SEED, 'steps')
    assert found.ratios == (2.0, 2.0, 4.0) and found.pairs == 'seed'
    assert found.ratio == pytest.approx(2 ** (4 / 3))
    half = 4.30265 / 3
    assert found.interval == pytest.approx((2 ** (4 / 3 - half), 2 ** (4 / 3 + half)), rel=1e-5)
    assert report.speed_up_cell(*BY_SEED, 'steps') == '≥ 2.52 [0.93, 6.81]'  # one of them at its first evaluation


def test_equal_time_divides_by_the_cost_of_a_step(report):
    """A step that takes twice as long halves each ratio."""
    assert report.speed_up(*BY_SEED, 'time').ratios == pytest.approx((1.0, 1.0, 2.0), rel=1e-5)


def test_only_shared_seeds_are_compared_and_what_is_missing_is_said(report):
    usp, scratch = BY_SEED
    assert report.speed_up_cell({0: usp[0]}, scratch, 'steps') == '2.00 (1 seed)'
    assert report.speed_up_cell({}, scratch, 'steps') == 'not run' == report.difference_cell({}, scratch)
    assert report.speed_up_cell({3: usp[0]}, scratch, 'steps') == 'not run'
    worse = {0: record('usp', 0, [4.0, 3.0, 2.0, 1.5]), 1: usp[1]}
    assert report.speed_up_cell(worse, scratch, 'steps') == 'not reached (1 of 2 seeds do)'


def test_the_difference_over_seeds(report):
    """-20, -20 and -30 %: mean -23.33, and half the interval is 4.3027 · 5.7735 / √3."""
    assert report.difference_cell(*BY_SEED) == '-23.33 % [-37.68, -8.99]'
    assert report.difference_cell({0: USP[0]}, BY_SEED[1]) == '-20.00 % (1 seed)'


def test_at_equal_time_the_run_that_lasts_longer_is_cut(report):
    """Scratch ends after 4 s at a loss of 1, when the others, at 0.2 s a step, are at their second evaluation: 0, 0, -10 %."""
    usp, scratch = BY_SEED
    assert report.difference_cell(usp, scratch, 'time') == '-3.33 % [-17.68, +11.01]'
    cheap = {0: record('usp', 0, [2.0, 1.0], 0.15)}  # ends after 3 s, at 30 of scratch's steps
    assert report.difference_cell(cheap, scratch, 'time') == '-50.00 % (1 seed)'


def test_the_tables(report):
    lines = report.comparison([*SCRATCH, *USP[:2]], 'sit', 'tiny').splitlines()
    assert len(lines) == 2 + len(report.ARMS)
    assert lines[2] == '| scratch | 0, 1, 2 | 0.100 ± 0.000 | 1.0000 ± 0.0000 | – | – | – | – | not run |'
    assert lines[3].startswith(
        '| usp | 0, 1 | 0.200 ± 0.000 (2 seeds) | 0.8000 ± 0.0000 (2 seeds) | -20.00 % [-20.00, -20.00] (2 seeds) | +0.00 %'
    )
    assert lines[4] == f'| usp-tread |{" not run |" * 8}'
    assert report.by_step([*SCRATCH, *USP], 'sit', 'tiny').splitlines()[2:] == [
        '| scratch | 4.0000 | 3.0000 | 2.0000 | 1.0000 |',
        '| usp | 1.6667 | 0.9667 | 0.8667 | 0.7667 |',
    ]
    sizes = ('tiny', 'medium', 'tiny-long', 'small')
    assert report.tables([]) == f'Not run: {", ".join(f"{family} {size}" for family in ("SiT", "DiT") for size in sizes)}.'
    assert report.tables(SCRATCH).endswith(
        '\n\nNot run: SiT medium, SiT tiny-long, SiT small, DiT tiny, DiT medium, DiT tiny-long, DiT small.'
    )


def test_the_page_keeps_what_is_around_the_marks(report, tmp_path):
    page = tmp_path / 'study.md'
    page.write_text(f'before\n{report.BEGIN}\nold\n{report.END}\nafter\n')
    report.write_report(tmp_path / 'study.json', [*SCRATCH, *USP])
    text = page.read_text()
    assert text.startswith(f'before\n{report.BEGIN}\n\n**SiT tiny**') and text.endswith(f'{report.END}\nafter\n')
    assert 'old' not in text and '![sit tiny](study-sit-tiny.png)' in text
    assert Image.open(tmp_path / 'study-sit-tiny.png').size == (840, 360)
    report.write_report(tmp_path / 'study.json', [*SCRATCH, *USP])
    assert page.read_text() == text
    page.write_text('no marks\n')
    with pytest.raises(ValueError, match='between which the tables belong: add them'):
        report.write_report(tmp_path / 'study.json', SCRATCH)
    assert page.read_text() == 'no marks\n'


def test_the_teacher_is_another_seeds(arms):
    assert [arms.teacher_seed(seed) for seed in range(3)] == [1, 2, 0]


@pytest.mark.parametrize('size', ['tiny', 'medium', 'small'])
def test_the_route_fits_the_depth(arms, size):
    from usp_mm.models.route import Route

    row, (start, end) = arms.SIZES[size].row, arms.SIZES[size].route
    route = Route(row['depth'], 64, start=start, end=-end)
    assert (route.start, route.end) == {'tiny': (1, 3), 'medium': (2, 6), 'small': (2, 8)}[size]


@pytest.mark.parametrize('family', ['sit', 'dit'])
@pytest.mark.parametrize('arm', ['usp', 'usp-tread', 'scratch-tread', 'usp-repa'])
def test_the_options_for_a_gpu_are_its_configs(arms, family, arm, tmp_path, monkeypatch):
    """What the script trains at size `small` is the config of that name."""
    from pathlib import Path

    from usp_mm.engine.starting.build_runner import load_run_config

    size, folder = arms.SIZES['small'], Path('work_dirs/start-study/emoji-128px')
    options = arms.generator_options(size, arms.ARMS[arm], 0, folder)
    if arms.ARMS[arm].pretraining:
        options |= arms.start_options('CHECKPOINT')
    if arms.ARMS[arm].aligned:
        checkpoint = str(folder / 'pretrain-small-x1-seed1' / 'epoch_200.pth')
        options |= arms.teacher_options(size, checkpoint, folder, folder / 'data' / 'imagenet')
    base = ROOT / 'configs' / family / f'{size.config.format(family)}.py'
    found = load_run_config(base, options, initialises=False)
    variant = {'usp': 'usp-pre_', 'usp-tread': 'usp-pre_tread_', 'scratch-tread': 'tread_', 'usp-repa': 'usp-pre_repa_'}[arm]
    leaf = load_leaf(f'configs/{family}/{family}-small-p2_{variant}1xb256-2k_emoji-128px.py')
    if arms.ARMS[arm].pretraining:
        leaf.model.denoiser.init_cfg.checkpoint = 'CHECKPOINT'
    assert found.model.to_dict() == leaf.model.to_dict()
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'train_cfg'):
        assert found[key].to_dict() == leaf[key].to_dict(), key


def test_finished_runs_are_found_and_other_settings_refused(dev, arms, tmp_path):
    from start_study import Records

    path = tmp_path / 'records.json'
    size = arms.SIZES['toy']
    done = record('usp', 1, [1.0], size='toy', steps=size.steps, batch_size=size.batch_size)
    earlier, reported = Records(path), []
    Records(path).add(done, lambda where, runs: reported.append((where, list(runs))))
    assert json.loads(path.read_text()) == dict(runs=[done]) and reported == [(path, [done])]
    other = dict(done, arm='scratch')  # of a process that had read the file before
    earlier.add(other, lambda where, runs: None)
    assert json.loads(path.read_text()) == dict(runs=[done, other])
    path.write_text(json.dumps(dict(runs=[done])))
    records = Records(path)
    assert records.find('sit', 'toy', 'usp', 1) == done
    assert [
        records.find(*key) for key in (('dit', 'toy', 'usp', 1), ('sit', 'toy', 'usp', 0), ('sit', 'toy', 'scratch', 1))
    ] == [None] * 3
    path.write_text(json.dumps(dict(runs=[dict(done, steps=7)])))
    with pytest.raises(ValueError, match=rf'usp seed 1 with steps=7, now it is {size.steps}: name another --records'):
        Records(path).find('sit', 'toy', 'usp', 1)
    path.write_text('[]')
    with pytest.raises(ValueError, match="expected the one key 'runs'"):
        Records(path)


def test_fd_joins_the_record_of_the_same_losses_alone(dev, tmp_path):
    from start_study import Records, with_fd

    old, again = record('usp', 0, [2.0, 1.0], 0.2), record('usp', 0, [2.0, 1.0], 0.9, fd=3.5, commit='def')
    assert with_fd(old, again) == old | dict(fd=3.5, fd_commit='def')
    with pytest.raises(ValueError, match=r'sit tiny usp 0 has now the losses \[2.0, 1.1\], and in its record \[2.0, 1.0\]'):
        with_fd(old, dict(again, losses=[2.0, 1.1]))
    records, other = Records(tmp_path / 'records.json'), record('scratch', 0, [2.0, 1.0])
    for run in (old, other, with_fd(old, again)):
        records.add(run, lambda where, runs: None)
    assert json.loads(records.path.read_text())['runs'] == [with_fd(old, again), other]


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--arm', 'uspp'], "invalid choice: 'uspp'"),
        (['--seed', 3], 'invalid choice: 3'),
        (['--fd', '--report'], 'not allowed with argument --fd'),
    ],
)
def test_unknown_words_are_refused(words, message, tmp_path):
    done = run_tool('dev/start_study.py', '--records', tmp_path / 'r.json', *words)
    assert done.returncode == 2 and message in done.stderr and not (tmp_path / 'r.json').exists()


def test_another_copy_of_the_package_is_refused(dev, tmp_path, monkeypatch):
    from few_labels_parts.arms import code_version

    monkeypatch.chdir(tmp_path)  # the commit is the checkout's, not that of the current folder
    assert re.fullmatch('[0-9a-f]{10}|unknown', code_version())
    monkeypatch.setattr(usp_mm, '__file__', str(tmp_path / 'usp_mm' / '__init__.py'))
    with pytest.raises(ValueError, match=f"usp_mm is that of '{tmp_path}', and the records would name the commit of '{ROOT}'"):
        code_version()


def test_the_page_shows_its_records(dev, report):
    """The tables of docs/usp-start.md are those of docs/usp-start.json."""
    page = (ROOT / 'docs' / 'usp-start.md').read_text()
    runs = json.loads((ROOT / 'docs' / 'usp-start.json').read_text())['runs']
    assert f'{report.BEGIN}\n\n{report.tables(runs)}\n\n{report.END}' in page


@pytest.mark.slow
def test_a_toy_study_and_a_second_call(tmp_path):
    records = tmp_path / 'study.json'
    words = ['--records', records, '--work-dir', tmp_path / 'work', '--size', 'toy', '--family', 'sit', '--seed', 0]
    make_demo_emoji(tmp_path / 'work' / 'toy' / 'data', DemoEmoji())
    done = run_tool('dev/start_study.py', *words, '--arm', 'scratch', 'usp')
    assert done.returncode == 0, done.stderr
    runs = json.loads(records.read_text())['runs']
    assert [set(run) for run in runs] == [KEYS] * 2
    assert [(run['arm'], run['seed'], run['at'], run['steps']) for run in runs] == [
        ('scratch', 0, [2, 4], 4),
        ('usp', 0, [2, 4], 4),
    ]
    assert all(run['losses'][0] != run['losses'][1] and run['seconds_per_step'] > 0 for run in runs)
    assert runs[0]['losses'][0] != runs[1]['losses'][0]
    assert not list(tmp_path.glob('work/toy/runs/*/*.pth'))
    again = run_tool('dev/start_study.py', *words, '--arm', 'scratch', 'usp', 'scratch-tread')
    assert again.returncode == 0, again.stderr
    assert f"2 of 3 runs have a record in '{records}' and are not repeated" in again.stdout
    third = json.loads(records.read_text())['runs']
    assert third[:2] == runs and [run['arm'] for run in third[2:]] == ['scratch-tread']
    assert '| scratch-tread | 0 |' in (tmp_path / 'study.md').read_text()
    judged = run_tool('dev/start_study.py', *words, '--arm', 'scratch', 'usp-tread', '--fd')
    assert judged.returncode == 0, judged.stderr
    with_fd = json.loads(records.read_text())['runs']
    assert with_fd[0] == runs[0] | {key: with_fd[0][key] for key in FD_KEYS} and with_fd[1:3] == third[1:]
    assert set(with_fd[3]) == KEYS | FD_KEYS and with_fd[3]['fd'] > 0
    assert f'| {with_fd[0]["fd"]:.2f} (1 seed) |' in (tmp_path / 'study.md').read_text()
