"""A resumed run: to the bit what it was, or at the rates of its own config."""

import re
from itertools import chain

import pytest
import torch
from helpers.toy_runs import Model, log_of, run, saved
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.registry import OPTIMIZERS
from mmpretrain.engine.optimizers import Lamb  # noqa: F401  (registers it)

from usp_mm.engine.hyper_parameters import optimizer_state
from usp_mm.engine.schedule import advance

WARM_COSINE = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, eta_min=0.0, convert_to_iter_based=True),
]
EIGHT = dict(train_cfg=dict(max_epochs=8), schedulers=WARM_COSINE)
BATCH, LENGTH = 'batch_size (samples a process and iteration) {} -> {}', 'iters_per_epoch (iterations an epoch) {} -> {}'
FORTY = dict(
    train_cfg=dict(max_iters=40),
    schedulers=[
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
        dict(type='PolyLR', eta_min=0.01, power=0.9, by_epoch=False, begin=5),
    ],
    checkpoint=dict(interval=4),
)


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """Work folder of an uninterrupted run over 8 epochs of 10 iterations."""
    folder = tmp_path_factory.mktemp('first')
    run(folder, **EIGHT)
    return folder


def told(folder):
    return re.findall(r'(?:WARNING|INFO) - resume: (.*)', log_of(folder))


def assert_same(first, second):
    """Weights, moments and hyper-parameters of two checkpoints to the bit."""
    assert first['meta']['epoch'] == second['meta']['epoch'] and first['meta']['iter'] == second['meta']['iter']
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name
    assert first['optimizer']['param_groups'] == second['optimizer']['param_groups']
    for key, state in first['optimizer']['state'].items():
        assert all(torch.equal(value, second['optimizer']['state'][key][name]) for name, value in state.items())


def assert_follows(recorder, whole):
    """All hyper-parameters of each iteration are those of an uninterrupted run."""
    start = min(recorder.groups)
    assert recorder.groups == {iteration: groups for iteration, groups in whole.groups.items() if iteration >= start}


def test_resumed_as_it_was_nothing_changes(first, tmp_path):
    run(tmp_path, **EIGHT, resume=True, load_from=str(first / 'epoch_3.pth'))
    assert_same(saved(first / 'epoch_8.pth'), saved(tmp_path / 'epoch_8.pth'))
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
def test_what_changed_is_told_and_the_rates_are_those_of_this_config(changed, start, lines, first, tmp_path):
    changed = {**EIGHT, **changed}
    _, recorder = run(tmp_path / 'resumed', **changed, resume=True, load_from=str(first / 'epoch_3.pth'))
    _, whole = run(tmp_path / 'whole', **changed)
    assert min(recorder.groups) == start
    assert_follows(recorder, whole)
    position = f"the run goes on at epoch 3, iteration {start} (the checkpoint's: 3, 30)"
    rate = f'where this config has a learning rate of {whole.rates()[start]:.4g}'
    assert told(tmp_path / 'resumed') == [*lines, f'{position}, {rate}']
    # the moments are the checkpoint's: their count of steps goes on
    steps = len(whole.groups) // changed['train_cfg']['max_epochs'] // changed.get('wrapper', {}).get('accumulative_counts', 1)
    assert saved(tmp_path / 'resumed' / 'epoch_4.pth')['optimizer']['state'][0]['step'] == 30 + steps


@OPTIMIZERS.register_module()
class GrowingAdamW(torch.optim.AdamW):
    """Keeps an estimate and a count in its groups, as Prodigy, D-Adaptation and schedule-free optimizers do."""

    def __init__(self, params, lr=1.0, d0=1e-3, **kwargs):
        super().__init__(params, lr=lr, **kwargs)
        self.defaults.update(d0=d0, d=d0, k=0)
        for group in self.param_groups:
            group.update(d0=d0, d=d0, k=0)

    def step(self, closure=None):
        for group in self.param_groups:
            group['d'], group['k'] = 1.02 * group['d'], group['k'] + 1
            rate, group['lr'] = group['lr'], group['lr'] * group['d']
        super().step(closure)
        for group in self.param_groups:
            group['lr'] = rate


@pytest.mark.parametrize(
    ('optimizer', 'counter'),
    [(dict(type='GrowingAdamW'), 'k'), (dict(type='mmpretrain.Lamb', lr=0.02), 'step')],
)
@pytest.mark.parametrize('wrapper', [None, dict(paramwise_cfg=dict(bias_decay_mult=0.0))])
def test_what_an_optimizer_counts_in_its_groups_is_the_checkpoints(optimizer, counter, wrapper, tmp_path):
    """Under a constant rate, a longer run begins as a shorter one."""
    short, long = (
        dict(train_cfg=dict(max_epochs=epochs), optimizer={**optimizer, 'weight_decay': 0.1}, wrapper=wrapper)
        for epochs in (4, 8)
    )
    run(tmp_path / 'short', **short)
    start = dict(resume=True, load_from=str(tmp_path / 'short' / 'epoch_2.pth'))
    run(tmp_path / 'same', **short, **start)
    assert told(tmp_path / 'same') == ['the settings are those of the checkpoint']
    assert_same(*(saved(tmp_path / name / 'epoch_4.pth') for name in ('short', 'same')))

    run(tmp_path / 'whole', **long)
    run(tmp_path / 'on', **long, **start)
    lines = told(tmp_path / 'on')
    assert lines[0] == 'max_epochs (epochs) 4 -> 8' and len(lines) == 2
    whole, on = (saved(tmp_path / name / 'epoch_8.pth') for name in ('whole', 'on'))
    assert_same(whole, on)
    assert [group[counter] for group in on['optimizer']['param_groups']] == [80] * (2 if wrapper else 1)


def test_what_an_optimizer_takes_is_the_configs(tmp_path):
    cfg = dict(train_cfg=dict(max_epochs=4))
    run(tmp_path / 'first', **cfg, optimizer=dict(type='GrowingAdamW'))
    other = dict(type='GrowingAdamW', lr=0.5, d0=1e-2, eps=1e-6)
    run(tmp_path / 'on', **cfg, optimizer=other, resume=True, load_from=str(tmp_path / 'first' / 'epoch_2.pth'))
    assert told(tmp_path / 'on')[:-1] == ['d0 0.001 -> 0.01', 'eps 1e-08 -> 1e-06', 'lr 1.0 -> 0.5']
    group = saved(tmp_path / 'on' / 'epoch_3.pth')['optimizer']['param_groups'][0]
    assert (group['d0'], group['eps'], group['lr'], group['k']) == (0.01, 1e-6, 0.5, 30)
    assert group['d'] == pytest.approx(1e-3 * 1.02**30)


def test_options_of_custom_keys_are_the_configs(tmp_path):
    def cfg(flag):
        wrapper = dict(paramwise_cfg=dict(custom_keys=dict(linear=dict(use_muon=flag, d=1e-3))))
        written = Config(dict(param_scheduler=None, optim_wrapper=wrapper))
        return dict(
            train_cfg=dict(max_epochs=4),
            optimizer=dict(type='GrowingAdamW', lr=1.0, weight_decay=0.1),
            wrapper=wrapper,
            cfg=written,
        )

    run(tmp_path / 'first', **cfg(False))
    start = dict(resume=True, load_from=str(tmp_path / 'first' / 'epoch_2.pth'))
    run(tmp_path / 'same', **cfg(False), **start)
    assert told(tmp_path / 'same') == ['the settings are those of the checkpoint']
    run(tmp_path / 'on', **cfg(True), **start)
    assert told(tmp_path / 'on')[0] == 'use_muon False -> True' and len(told(tmp_path / 'on')) == 2
    groups = saved(tmp_path / 'on' / 'epoch_3.pth')['optimizer']['param_groups']
    assert [(group['use_muon'], group['k']) for group in groups] == [(True, 30)] * 2


def test_keys_of_schedules_are_no_state():
    group = dict(params=[], betas=(0.9, 0.99), momentum=0.9, initial_momentum=0.9, max_momentum=0.95, lr_max=0.2, d=3.0)
    group.update(scale=1.0, initial_scale=2.0)
    assert optimizer_state(group, {'params', 'lr', 'momentum', 'betas'}) == dict(lr_max=0.2, d=3.0)


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


def test_a_second_resume_of_a_changed_run_is_to_the_bit(first, tmp_path):
    changed = {**EIGHT, 'batch': 2}
    run(tmp_path, **changed, resume=True, load_from=str(first / 'epoch_3.pth'))
    run(tmp_path / 'again', **changed, resume=True, load_from=str(tmp_path / 'epoch_6.pth'))
    assert_same(*(saved(folder / 'epoch_8.pth') for folder in (tmp_path, tmp_path / 'again')))
    assert told(tmp_path / 'again') == ['the settings are those of the checkpoint']


def test_a_checkpoint_without_settings_tells_what_it_can(first, tmp_path):
    checkpoint = saved(first / 'epoch_3.pth')
    del checkpoint['meta']['training_settings']
    torch.save(checkpoint, tmp_path / 'old.pth')
    assumed = (
        'the checkpoint does not say with which batch it was trained: '
        'batch_size={}, world_size=1, accumulative_counts=1 as now is assumed'
    )
    run(tmp_path / 'same', **EIGHT, resume=True, load_from=str(tmp_path / 'old.pth'))
    assert_same(*(saved(folder / 'epoch_8.pth') for folder in (first, tmp_path / 'same')))
    assert told(tmp_path / 'same') == [assumed.format(4), 'the settings are those of the checkpoint']

    changed = {**EIGHT, 'batch': 2, 'train_cfg': dict(max_epochs=16), 'optimizer': dict(type='AdamW', lr=0.2)}
    _, recorder = run(tmp_path / 'other', **changed, resume=True, load_from=str(tmp_path / 'old.pth'))
    _, whole = run(tmp_path / 'whole', **changed)
    assert_follows(recorder, whole)
    lines = told(tmp_path / 'other')
    assert lines[:3] == [assumed.format(2), 'iters_per_epoch (iterations an epoch) 10 -> 20', 'max_epochs (epochs) 8 -> 16']
    assert 'lr 0.1 -> 0.2' in lines


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(optimizer=dict(type='SGD', lr=0.1)), r"the checkpoint's optimizer is \['AdamW'\], the config's is \['SGD'\]"),
        (
            dict(wrapper=dict(paramwise_cfg=dict(bias_lr_mult=2.0))),
            '1 parameter groups of 2 parameters, the optimizer has 2',
        ),
        (
            dict(train_cfg=dict(max_epochs=2), schedulers=None),
            r'has trained for 3 epochs, train_cfg.max_epochs is 2: give the epochs of the whole',
        ),
        (dict(train_cfg=dict(max_iters=50), schedulers=None), 'is of a run over epochs, train_cfg counts iterations'),
    ],
)
def test_what_cannot_go_on_is_refused(changed, message, first, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **{**EIGHT, **changed}, resume=True, load_from=str(first / 'epoch_3.pth'))
    assert not list(tmp_path.glob('*.pth'))


def test_a_checkpoint_without_optimizer_is_refused(first, tmp_path):
    checkpoint = saved(first / 'epoch_3.pth')
    del checkpoint['optimizer']  # as CheckpointHook's save_best leaves it
    torch.save(checkpoint, tmp_path / 'best.pth')
    with pytest.raises(ValueError, match='holds no state of the optimizer, so a run cannot be resumed from it: start from its'):
        run(tmp_path / 'run', **EIGHT, resume=True, load_from=str(tmp_path / 'best.pth'))


@pytest.mark.parametrize(('key', 'what'), [('optimizer', 'state of the optimizer'), ('message_hub', 'message hub')])
def test_a_published_checkpoint_without_settings_is_refused(key, what, first, tmp_path):
    checkpoint = saved(first / 'epoch_3.pth')
    kept = ('meta', 'state_dict') if key == 'optimizer' else ('meta', 'state_dict', 'optimizer')
    checkpoint = {name: checkpoint[name] for name in kept}
    del checkpoint['meta']['training_settings']
    torch.save(checkpoint, tmp_path / 'published.pth')
    with pytest.raises(ValueError, match=f'the checkpoint holds no {what}, so a run cannot be resumed from it: start from its'):
        run(tmp_path / 'run', **EIGHT, resume=True, load_from=str(tmp_path / 'published.pth'))


def test_weights_are_loaded_after_a_resumed_training(first, tmp_path):
    best = saved(first / 'epoch_5.pth')
    del best['optimizer']
    best['state_dict']['linear.weight'] += 1
    torch.save(best, tmp_path / 'best.pth')
    runner, _ = run(tmp_path / 'run', **EIGHT, resume=True, load_from=str(first / 'epoch_3.pth'))
    runner.load_checkpoint(str(tmp_path / 'best.pth'))
    assert torch.equal(runner.model.linear.weight, best['state_dict']['linear.weight'])
    torch.save(dict(state_dict=dict(other=torch.zeros(1))), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='the checkpoint does not fit the config: '):
        runner.load_checkpoint(str(tmp_path / 'other.pth'))


LAZY = """
from mmengine.optim import CosineAnnealingLR
param_scheduler = {}
"""
COSINE = 'dict(type=CosineAnnealingLR, T_max=8, eta_min={})'


@pytest.mark.parametrize('form', ['{}', '[{}]'])
def test_schedulers_given_by_their_class(form, tmp_path):
    """As configs in Python's own style give them."""

    def train(name, rate, **kwargs):
        path = tmp_path / f'{name}.py'
        path.write_text(LAZY.format(form.format(COSINE.format(rate))))
        cfg = Config.fromfile(path, lazy_import=True)
        kwargs = dict(cfg=cfg, schedulers=cfg.param_scheduler, **kwargs)
        return run(tmp_path / name, train_cfg=dict(max_epochs=8), **kwargs)[1]

    train('first', 0.0)
    start = dict(resume=True, load_from=str(tmp_path / 'first' / 'epoch_3.pth'))
    assert saved(tmp_path / 'first' / 'epoch_3.pth')['meta']['training_settings']['param_scheduler']
    train('same', 0.0, **start)
    assert told(tmp_path / 'same') == ['the settings are those of the checkpoint']
    named = dict(type='mmengine.CosineAnnealingLR', T_max=8, eta_min=0.0)
    run(tmp_path / 'named', train_cfg=dict(max_epochs=8), schedulers=named, **start)
    assert told(tmp_path / 'named') == ['the settings are those of the checkpoint']
    recorder, whole = train('other', 0.01, **start), train('whole', 0.01)
    assert told(tmp_path / 'other')[0] == 'param_scheduler.0 (CosineAnnealingLR): eta_min 0.0 -> 0.01'
    assert_follows(recorder, whole)


def test_schedulers_whose_classes_were_not_kept_are_compared_as_they_were_built(first, tmp_path):
    checkpoint = saved(first / 'epoch_3.pth')
    checkpoint['meta']['training_settings']['param_scheduler'] = dict(by_epoch=True, gamma=0.5)
    torch.save(checkpoint, tmp_path / 'old.pth')
    run(tmp_path / 'on', **EIGHT, resume=True, load_from=str(tmp_path / 'old.pth'))
    assert told(tmp_path / 'on') == ['the settings are those of the checkpoint']


def test_half_the_batch_without_twice_the_iterations_is_refused(tmp_path):
    run(tmp_path, **FORTY)
    message = r'samples of 48 iterations are trained on, train_cfg.max_iters is 40: .*\(80 for the checkpoint\'s run\)'
    with pytest.raises(ValueError, match=message):
        run(tmp_path / 'half', **{**FORTY, 'batch': 2}, resume=True, load_from=str(tmp_path / 'iter_24.pth'))


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


def test_within_an_epoch_with_a_sampler_that_starts_nowhere_else(tmp_path):
    within = {**EIGHT, 'checkpoint': dict(by_epoch=False, interval=4), 'sampler': 'DefaultSampler'}
    run(tmp_path, **within)
    with pytest.raises(ValueError, match=r"sampler DefaultSampler cannot start: use sampler=dict\(type='EpochSampler'\)"):
        run(tmp_path / 'resumed', **within, resume=True, load_from=str(tmp_path / 'iter_12.pth'))


def test_parameter_groups_of_many_rates(tmp_path):
    grouped = {
        **EIGHT,
        'optimizer': dict(type='AdamW', lr=0.1, weight_decay=0.1),
        'wrapper': dict(paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0)),
    }
    run(tmp_path / 'first', **grouped)
    changed = {**grouped, 'batch': 2, 'optimizer': dict(type='AdamW', lr=0.2, weight_decay=0.1)}
    runner, recorder = run(tmp_path / 'resumed', **changed, resume=True, load_from=str(tmp_path / 'first' / 'epoch_3.pth'))
    other, whole = run(tmp_path / 'whole', **changed)
    assert_follows(recorder, whole)
    assert [group['lr'] / recorder.groups[60][0]['lr'] for group in recorder.groups[60]] == pytest.approx([1, 2])
    base, expected = (r.optim_wrapper.base_param_settings for r in (runner, other))
    assert base['lr'] == expected['lr'] and base['initial_lr'] == 0.2
    assert 'lr 0.1 -> 0.2' in told(tmp_path / 'resumed')


def test_what_followed_scores_goes_on_from_the_checkpoint(tmp_path):
    plateau = dict(type='ReduceOnPlateauLR', monitor='score', rule='greater', factor=0.5, patience=0, threshold=0.0)

    def score(folder, train=True, **kwargs):
        runner, recorder = run(folder, train_cfg=dict(max_epochs=6), schedulers=plateau, train=False, **kwargs)
        step = runner.train_loop.run_epoch
        schedule = next(hook for hook in runner.hooks if isinstance(hook, ParamSchedulerHook))

        def run_epoch():  # a validation that never improves
            step()
            schedule.after_val_epoch(runner, metrics=dict(score=1.0))

        runner.train_loop.run_epoch = run_epoch
        runner.train()
        return recorder

    whole = score(tmp_path / 'first', checkpoint=dict(interval=1))
    last = saved(tmp_path / 'first' / 'epoch_4.pth')['optimizer']['param_groups'][0]['lr']
    assert last == pytest.approx(0.1 / 2**2) and list(whole.rates().values())[30] == last
    recorder = score(
        tmp_path / 'resumed', batch=2, optimizer=dict(type='AdamW', lr=0.2),
        resume=True, load_from=str(tmp_path / 'first' / 'epoch_4.pth'),
    )  # fmt: skip
    assert recorder.rates()[80] == pytest.approx(2 * last)
    assert any('(ReduceOnPlateauLR) follows validation scores' in line for line in told(tmp_path / 'resumed'))


class TwoModels(Model):
    """Two networks, each with an optimizer of its own."""

    def __init__(self):
        super().__init__()
        self.other = torch.nn.Linear(3, 1)

    def train_step(self, data, optim_wrapper):
        inputs = torch.stack(list(data['inputs']))
        for name, network in (('one', self.linear), ('two', self.other)):
            optim_wrapper[name].update_params(network(inputs).square().mean())
        return dict(loss=inputs.mean())


def test_two_optimizers_with_schedules_of_their_own(tmp_path, monkeypatch):
    from mmengine.optim import OptimWrapper, OptimWrapperDict

    monkeypatch.setattr('helpers.toy_runs.Model', TwoModels)
    schedulers = dict(one=WARM_COSINE, two=[dict(type='MultiStepLR', milestones=[2, 5], by_epoch=True)])

    def train(folder, rate=0.1, **kwargs):
        rates = {}
        runner, _ = run(folder, train_cfg=dict(max_epochs=8), train=False, schedulers=schedulers, **kwargs)
        networks = dict(one=runner.model.linear, two=runner.model.other)
        runner.optim_wrapper = OptimWrapperDict(
            **{name: OptimWrapper(torch.optim.SGD(net.parameters(), lr=rate)) for name, net in networks.items()}
        )
        runner._hooks[-1].before_train_iter = lambda runner, batch_idx, data_batch: rates.update(
            {runner.iter: [wrapper.param_groups[0]['lr'] for wrapper in runner.optim_wrapper.values()]}
        )
        runner.train()
        return rates

    train(tmp_path / 'first')
    start = dict(resume=True, load_from=str(tmp_path / 'first' / 'epoch_4.pth'))
    resumed = train(tmp_path / 'resumed', rate=0.3, batch=2, **start)
    whole = train(tmp_path / 'whole', rate=0.3, batch=2)
    assert resumed == {iteration: rates for iteration, rates in whole.items() if iteration >= 80}
    assert {'one.lr 0.1 -> 0.3', 'two.lr 0.1 -> 0.3'} <= set(told(tmp_path / 'resumed'))


def stepped(groups, schedulers, epochs, length, rest):
    """What MMEngine's ParamSchedulerHook does."""
    for epoch in range(epochs + 1):
        for _ in range(length if epoch < epochs else rest):
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch and epoch < epochs:
                scheduler.step()
    return [{key: value for key, value in group.items() if key != 'params'} for group in groups]


def test_advancing_is_stepping_for_every_scheduler(all_schedulers):
    from mmengine.optim import OptimWrapper
    from mmengine.registry import PARAM_SCHEDULERS

    def build(cfg):
        groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=lr) for lr in (0.1, 0.2, 0.1)]
        wrapper = OptimWrapper(torch.optim.AdamW(groups))
        return wrapper, PARAM_SCHEDULERS.build(dict(cfg), default_args=dict(optimizer=wrapper, epoch_length=7))

    for cfg in all_schedulers:
        if 'Plateau' in cfg['type']:
            continue
        for converted in (True, False):
            cfg = {**cfg, 'convert_to_iter_based': converted}
            wrapper, scheduler = build(cfg)
            before = scheduler.state_dict()
            groups, states = advance(wrapper.param_groups, [scheduler], 5, 7, 3)
            assert scheduler.state_dict() == before
            expected = stepped(wrapper.param_groups, [scheduler], 5, 7, 3)
            values = [{key: value for key, value in group.items() if key != 'params'} for group in groups]
            assert values == expected, cfg
            assert states == [scheduler.state_dict()], cfg


def test_a_finished_run_says_that_nothing_is_left(first, tmp_path):
    run(tmp_path, **EIGHT, resume=True, load_from=str(first / 'epoch_8.pth'))
    assert told(tmp_path)[0] == 'the checkpoint is the end of the run: nothing is left to train'
    assert not list(tmp_path.glob('*.pth'))
