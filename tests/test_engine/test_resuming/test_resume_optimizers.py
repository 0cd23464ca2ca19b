"""Optimizers of a resumed run: their state is the checkpoint's, their settings are the config's."""

import pytest
import torch
from helpers.resumed_runs import EIGHT, WARM_COSINE, assert_follows, assert_same, told
from helpers.toy_runs import Model, run, saved
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from mmpretrain.engine.optimizers import Lamb  # noqa: F401  (registers it)

from usp_mm.engine.optim.hyper_parameters import optimizer_state


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
