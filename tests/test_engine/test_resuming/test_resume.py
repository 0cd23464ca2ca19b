"""A resumed run: to the bit what it was, or at the rates of its own config."""

from itertools import chain

import pytest
import torch
from helpers.resumed_runs import BATCH, EIGHT, FORTY, LENGTH, WARM_COSINE, assert_follows, assert_same, told
from helpers.toy_runs import run, saved


def test_resumed_as_it_was_nothing_changes(first_run, tmp_path):
    run(tmp_path, **EIGHT, resume=True, load_from=str(first_run / 'epoch_3.pth'))
    assert_same(saved(first_run / 'epoch_8.pth'), saved(tmp_path / 'epoch_8.pth'))
    assert told(tmp_path) == ['the settings are those of the checkpoint']


def test_a_loop_over_iterations_resumed_as_it_was(tmp_path):
    run(tmp_path / 'whole', **FORTY)
    run(tmp_path / 'halves', **FORTY, resume=True, load_from=str(tmp_path / 'whole' / 'iter_12.pth'))
    assert_same(*(saved(tmp_path / name / 'iter_40.pth') for name in ('whole', 'halves')))
    assert told(tmp_path / 'halves') == ['the settings are those of the checkpoint']


@pytest.mark.parametrize(
    ('changed', 'start', 'lines'),
    [
        (dict(batch=2), 60, [BATCH.format(4, 2), LENGTH.format(10, 20)]),
        (dict(batch=9), 12, [BATCH.format(4, 9), LENGTH.format(10, 4)]),
        (dict(num=80), 60, [LENGTH.format(10, 20)]),
        (dict(train_cfg=dict(max_epochs=16)), 30, ['max_epochs (epochs) 8 -> 16']),
        (dict(train_cfg=dict(max_epochs=4)), 30, ['max_epochs (epochs) 8 -> 4']),
        (dict(wrapper=dict(accumulative_counts=2)), 30, ['accumulative_counts (iterations an optimizer step) 1 -> 2']),
        (dict(optimizer=dict(type='AdamW', lr=0.3, betas=(0.8, 0.99))), 30,
         ['betas (0.9, 0.999) -> (0.8, 0.99)', 'lr 0.1 -> 0.3']),
        (dict(schedulers=[WARM_COSINE[0], {**WARM_COSINE[1], 'eta_min': 0.05}]), 30,
         ['param_scheduler.1 (CosineAnnealingLR): eta_min 0.0 -> 0.05']),
        (dict(schedulers=dict(type='StepLR', step_size=2)), 30, ['param_scheduler LinearLR, CosineAnnealingLR -> StepLR']),
        (dict(schedulers=None), 30, ['param_scheduler LinearLR, CosineAnnealingLR -> none']),
    ],
)  # fmt: skip
def test_what_changed_is_told_and_the_rates_are_those_of_this_config(changed, start, lines, first_run, tmp_path):
    changed = {**EIGHT, **changed}
    _, recorder = run(tmp_path / 'resumed', **changed, resume=True, load_from=str(first_run / 'epoch_3.pth'))
    _, whole = run(tmp_path / 'whole', **changed)
    assert min(recorder.groups) == start
    assert_follows(recorder, whole)
    position = f"the run goes on at epoch 3, iteration {start} (the checkpoint's: 3, 30)"
    rate = f'where this config has a learning rate of {whole.rates()[start]:.4g}'
    assert told(tmp_path / 'resumed') == [*lines, f'{position}, {rate}']
    # the moments are the checkpoint's: their count of steps goes on
    steps = len(whole.groups) // changed['train_cfg']['max_epochs'] // changed.get('wrapper', {}).get('accumulative_counts', 1)
    assert saved(tmp_path / 'resumed' / 'epoch_4.pth')['optimizer']['state'][0]['step'] == 30 + steps


def test_a_loop_over_iterations_counts_samples(tmp_path):
    run(tmp_path / 'first', **FORTY)
    for batch, max_iters, start in ((2, 80, 24), (8, 20, 6), (5, 32, 9)):
        other = {**FORTY, 'train_cfg': dict(max_iters=max_iters), 'batch': batch}
        name = f'batch{batch}'
        _, recorder = run(tmp_path / name, **other, resume=True, load_from=str(tmp_path / 'first' / 'iter_12.pth'))
        _, whole = run(tmp_path / f'{name}-whole', **other)
        assert min(recorder.groups) == start
        assert_follows(recorder, whole)
        # the 48 samples of the first 12 iterations are neither repeated nor skipped
        assert list(chain(*recorder.samples))[:20] == list(chain(*whole.samples))[48:68]


@pytest.mark.parametrize('seed', [5, None])
@pytest.mark.parametrize(
    ('loop', 'sampler'),
    [
        (dict(max_epochs=4), None),
        (dict(max_epochs=4), 'DefaultSampler'),
        (dict(max_iters=40), None),
        (dict(type='IterBasedTrainLoop', max_iters=40), 'InfiniteSampler'),
    ],
)
def test_the_seed_is_the_checkpoints_for_the_data_too(loop, sampler, seed, tmp_path):
    interval, name = (20, 'iter_{}.pth') if 'max_iters' in loop else (2, 'epoch_{}.pth')
    cfg = dict(train_cfg=loop, sampler=sampler, checkpoint=dict(interval=interval))
    _, whole = run(tmp_path / 'whole', **cfg)
    start = tmp_path / 'whole' / name.format(interval)
    runner, recorder = run(tmp_path / 'on', **cfg, seed=seed, resume=True, load_from=str(start))
    assert (runner.seed, runner.train_dataloader.sampler.seed) == (0, 0)
    assert recorder.samples == whole.samples[20:]
    assert_same(*(saved(tmp_path / folder / name.format(2 * interval)) for folder in ('whole', 'on')))
    lines = ['the settings are those of the checkpoint']
    if seed is not None:
        lines.insert(0, "the seed is the checkpoint's, 0, not randomness.seed=5 of the config")
    assert told(tmp_path / 'on') == lines


def test_a_sampler_with_a_seed_of_its_own_keeps_it(tmp_path):
    cfg = dict(train_cfg=dict(max_epochs=4), sampler_seed=3)
    _, whole = run(tmp_path / 'whole', **cfg)
    runner, recorder = run(tmp_path / 'on', **cfg, seed=5, resume=True, load_from=str(tmp_path / 'whole' / 'epoch_2.pth'))
    assert runner.seed == 0 and runner.train_dataloader.sampler.seed == 3
    assert recorder.samples == whole.samples[20:]


def test_a_second_resume_of_a_changed_run_is_to_the_bit(first_run, tmp_path):
    changed = {**EIGHT, 'batch': 2}
    run(tmp_path, **changed, resume=True, load_from=str(first_run / 'epoch_3.pth'))
    run(tmp_path / 'again', **changed, resume=True, load_from=str(tmp_path / 'epoch_6.pth'))
    assert_same(*(saved(folder / 'epoch_8.pth') for folder in (tmp_path, tmp_path / 'again')))
    assert told(tmp_path / 'again') == ['the settings are those of the checkpoint']


def test_a_checkpoint_without_settings_tells_what_it_can(first_run, tmp_path):
    checkpoint = saved(first_run / 'epoch_3.pth')
    del checkpoint['meta']['training_settings']
    torch.save(checkpoint, tmp_path / 'old.pth')
    assumed = (
        'the checkpoint does not say with which batch it was trained: '
        'batch_size={}, world_size=1, accumulative_counts=1 as now is assumed'
    )
    run(tmp_path / 'same', **EIGHT, resume=True, load_from=str(tmp_path / 'old.pth'))
    assert_same(*(saved(folder / 'epoch_8.pth') for folder in (first_run, tmp_path / 'same')))
    assert told(tmp_path / 'same') == [assumed.format(4), 'the settings are those of the checkpoint']

    changed = {**EIGHT, 'batch': 2, 'train_cfg': dict(max_epochs=16), 'optimizer': dict(type='AdamW', lr=0.2)}
    _, recorder = run(tmp_path / 'other', **changed, resume=True, load_from=str(tmp_path / 'old.pth'))
    _, whole = run(tmp_path / 'whole', **changed)
    assert_follows(recorder, whole)
    lines = told(tmp_path / 'other')
    assert lines[:3] == [assumed.format(2), 'iters_per_epoch (iterations an epoch) 10 -> 20', 'max_epochs (epochs) 8 -> 16']
    assert 'lr 0.1 -> 0.2' in lines


def test_weights_are_loaded_after_a_resumed_training(first_run, tmp_path):
    best = saved(first_run / 'epoch_5.pth')
    del best['optimizer']
    best['state_dict']['linear.weight'] += 1
    torch.save(best, tmp_path / 'best.pth')
    runner, _ = run(tmp_path / 'run', **EIGHT, resume=True, load_from=str(first_run / 'epoch_3.pth'))
    runner.load_checkpoint(str(tmp_path / 'best.pth'))
    assert torch.equal(runner.model.linear.weight, best['state_dict']['linear.weight'])
    torch.save(dict(state_dict=dict(other=torch.zeros(1))), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='the checkpoint does not fit the config: '):
        runner.load_checkpoint(str(tmp_path / 'other.pth'))


@pytest.mark.parametrize('batches', [(8, 16, 4), (4, 16, 8, 16), (3, 5, 7, 4), (20, 8, 20)])
def test_no_sample_of_an_epoch_twice_or_not_at_all_at_any_batch(batches, tmp_path):
    """Ended after an iteration of the second epoch, with another batch each time; what makes no batch at its end is left."""
    seen, start, first = [], {}, 40 // batches[0]
    for turn, batch in enumerate(batches):
        last = turn == len(batches) - 1
        ends = dict(interval=1, by_epoch=False, max_keep_ckpts=-1)
        runner, recorder = run(tmp_path / str(turn), train_cfg=dict(max_epochs=3), batch=batch, checkpoint=ends, **start)
        samples = recorder.samples if turn else recorder.samples[first:]
        seen += [sample for part in (samples if last else samples[:1]) for sample in part]
        before = runner.train_loop.max_epochs * len(runner.train_dataloader) - len(samples) if turn else first
        start = dict(resume=True, load_from=str(tmp_path / str(turn) / f'iter_{before + 1}.pth'))
    rest, whole = 40 - sum(batches[:-1]), batches[-1]
    second = seen[: sum(batches[:-1]) + rest // whole * whole]
    assert len(second) == len(set(second)) and set(second) <= set(range(40))
    third = seen[len(second) :]
    assert len(third) == len(set(third)) == 40 // whole * whole


@pytest.mark.parametrize('interval', [4, 10])
def test_a_checkpoint_from_within_an_epoch(interval, tmp_path):
    """Its last iteration counts as its end; schedules over epochs and iterations go on."""
    schedule = [*WARM_COSINE, dict(type='ExponentialLR', gamma=0.9)]
    within = {**EIGHT, 'schedulers': schedule, 'checkpoint': dict(by_epoch=False, interval=interval)}
    _, whole = run(tmp_path / 'whole', **within)
    checkpoint = str(tmp_path / 'whole' / 'iter_20.pth')
    for start in (checkpoint, str(tmp_path / 'whole' / f'iter_{3 * interval}.pth')):
        _, recorder = run(tmp_path / 'resumed', **within, resume=True, load_from=start)
        assert_same(*(saved(tmp_path / name / 'iter_80.pth') for name in ('whole', 'resumed')))
        assert recorder.samples == whole.samples[min(recorder.groups) :]
    changed = {**within, 'batch': 2}
    _, recorder = run(tmp_path / 'half', **changed, resume=True, load_from=str(tmp_path / 'whole' / f'iter_{3 * interval}.pth'))
    _, whole = run(tmp_path / 'half-whole', **changed)
    assert min(recorder.groups) == 6 * interval
    assert_follows(recorder, whole)
    assert recorder.samples == whole.samples[6 * interval :]


def test_a_finished_run_says_that_nothing_is_left(first_run, tmp_path):
    run(tmp_path, **EIGHT, resume=True, load_from=str(first_run / 'epoch_8.pth'))
    assert told(tmp_path)[0] == 'the checkpoint is the end of the run: nothing is left to train'
    assert not list(tmp_path.glob('*.pth'))
