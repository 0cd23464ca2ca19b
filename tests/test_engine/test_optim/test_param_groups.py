"""Merged parameter groups: as few as there are options, every parameter's as before, in log, schedules and resumed runs."""

import re

import pytest
import torch
from helpers.small_world import load_leaf, train_quickly
from helpers.toy_runs import HOOKS, log_of, run, saved
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS, PARAM_SCHEDULERS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor  # noqa: F401  (registers it)

from usp_mm.analysis.complexity import build_meta
from usp_mm.engine.optim.param_groups import LABELS, layout_of, merge_equal_groups

MERGED = (*HOOKS, 'MergeParamGroupsHook')
ADAMW = dict(type='AdamW', lr=0.1, weight_decay=0.1)
FLAT = dict(paramwise_cfg=dict(flat_decay_mult=0.0))
LAYERS = dict(
    constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.5, flat_decay_mult=0.0),
)
WARM = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, T_max=3, eta_min_ratio=0.01),
]
FOUR = dict(train_cfg=dict(max_epochs=4), num=12, schedulers=WARM)  # of 3 iterations


class Deep(BaseModel):
    """Three layers and two norms; a frozen one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        sizes = (torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
        self.body, self.head = torch.nn.Sequential(*sizes), torch.nn.Linear(4, 1)
        self.frozen = torch.nn.Linear(1, 1).requires_grad_(False)

    def get_layer_depth(self, name):
        return (int(name.split('.')[1]) // 2 if name.startswith('body') else 2), 3

    def forward(self, inputs, mode='loss'):
        return dict(loss=(self.head(self.body(inputs)) - inputs.sum(1, keepdim=True)).square().mean())


@pytest.fixture(autouse=True)
def deep(monkeypatch):
    monkeypatch.setattr('helpers.toy_runs.Model', Deep)


def by_name(wrapper, layout):
    """The options of each parameter."""
    options = [{key: value for key, value in group.items() if key not in LABELS} for group in wrapper.optimizer.param_groups]
    return {name: option for names, option in zip(layout, options, strict=True) for name in names}


@pytest.mark.parametrize(
    ('path', 'before', 'after'),
    [
        ('usp/usp_vit-base_64xb64-amp-coslr-800e_in1k', 252, 2),
        ('usp/usp_vit-xl_64xb64-amp-coslr-800e_in1k', 444, 2),
        ('usp/usp_vit-xl_va-f16d32-lightning_64xb64-amp-coslr-800e_in1k-256px-latents', 387, 2),
        ('vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k', 151, 28),
        ('vit/vit-large_usp-pre_8xb128-amp-coslr-50e_in1k', 295, 52),
        ('vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k', 1, 1),
        ('dit/dit-xl-p2_8xb32-400k_in1k-256px', 1, 1),
        ('upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512', 198, 2),
        ('upernet/upernet_vit-base_usp-pre_layerdecay065_8xb2-amp-160k_ade20k-512x512', 198, 28),
    ],
)
def test_the_groups_of_every_stage(path, before, after):
    cfg = load_leaf(f'configs/{path}.py')
    assert cfg.default_hooks.merge_param_groups == dict(type='MergeParamGroupsHook', enable=True)
    MMLogger.get_current_instance().setLevel('ERROR')
    model = build_meta(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    layout = layout_of(wrapper, model)
    groups, params = wrapper.optimizer.param_groups, [group['params'] for group in wrapper.optimizer.param_groups]
    options, base = by_name(wrapper, layout), wrapper.base_param_settings
    assert len(groups) == before
    merge_equal_groups(wrapper, [], layout)
    assert len(groups) == after and wrapper.base_param_settings is base
    merged = layout_of(wrapper, model)
    assert by_name(wrapper, merged) == options and len(options) == sum(map(len, params))
    named = dict(model.named_parameters())
    assert all(
        named[name] is param for names, group in zip(merged, groups, strict=True)
        for name, param in zip(names, group['params'], strict=True)
    )  # fmt: skip
    # in the order of before: of the groups by their first parameters, and within them
    order = {name: i for i, name in enumerate(name for names in layout for name in names)}
    places = [[order[name] for name in names] for names in merged]
    assert places == sorted(places) and all(part == sorted(part) for part in places)


def test_a_trained_vae_keeps_the_official_group(small_world, tmp_path):
    cfg = small_world.shrink(load_leaf('configs/vit/vit-base_usp-pre_train-vae_8xb128-amp-coslr-100e_in1k.py'), img_size=64)
    del cfg.default_hooks['run_info']
    groups = train_quickly(cfg, tmp_path).optim_wrapper.optimizer.param_groups
    found = [group for group in groups if any('vae_encoder' in name for name in group['param_names'])]
    assert [(group['lr_scale'], group['initial_lr'], group['weight_decay']) for group in found] == [(1.0, 4e-3, 0.05)]
    assert len(groups) == 8


def trace(recorder, runner):
    """The options of each parameter before each iteration."""
    layout = layout_of(runner.optim_wrapper, runner.model)
    return {
        iteration: {
            name: {key: value for key, value in group.items() if key not in LABELS}
            for names, group in zip(layout, groups, strict=True) for name in names
        }
        for iteration, groups in recorder.groups.items()
    }  # fmt: skip


def moments(checkpoint, layout):
    names = [name for names in layout for name in names]
    return {names[index]: state for index, state in checkpoint['optimizer']['state'].items()}


def assert_same_end(first, second):
    """Weights and moments of two finished runs, by name, to the bit. Each is (folder, runner)."""
    last = [saved(folder / 'epoch_4.pth') for folder, _ in (first, second)]
    for name, value in last[0]['state_dict'].items():
        assert torch.equal(value, last[1]['state_dict'][name]), name
    layouts = [layout_of(runner.optim_wrapper, runner.model) for _, runner in (first, second)]
    ours, theirs = map(moments, last, layouts)
    assert ours.keys() == theirs.keys() and (ours or not any(part['optimizer']['state'] for part in last))
    for name, state in ours.items():
        assert state.keys() == theirs[name].keys()
        assert all(torch.equal(value, theirs[name][key]) for key, value in state.items()), name


@pytest.mark.parametrize(
    ('optimizer', 'wrapper', 'groups'),
    [
        (ADAMW, FLAT, 2),
        (ADAMW, LAYERS, 6),
        ({**ADAMW, 'fused': True}, FLAT, 2),
        ({**ADAMW, 'foreach': True}, LAYERS, 6),
        (dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.1), FLAT, 2),
        (dict(type='MAELARS', lr=0.1, weight_decay=0.1), FLAT, 2),
        (dict(type='mmpretrain.Lamb', lr=0.02, weight_decay=0.1, max_grad_norm=1e9), FLAT, 2),
    ],
)
def test_resumed_merged_or_not_a_run_ends_as_an_uninterrupted_one(optimizer, wrapper, groups, tmp_path):
    """Before: the run that saves after 3 steps; after: the run that goes on from there."""
    cfg = dict(**FOUR, optimizer=optimizer, wrapper=wrapper)
    whole, recorder = run(tmp_path / 'whole', **cfg)
    assert len(whole.optim_wrapper.optimizer.param_groups) == 10
    expected = trace(recorder, whole)
    merged, recorder = run(tmp_path / 'merged', **cfg, hooks=MERGED)
    assert len(merged.optim_wrapper.optimizer.param_groups) == groups
    assert trace(recorder, merged) == expected
    assert_same_end((tmp_path / 'whole', whole), (tmp_path / 'merged', merged))
    for name, before, hooks in (('on', 'whole', MERGED), ('again', 'merged', MERGED), ('apart', 'merged', HOOKS)):
        folder = tmp_path / name
        start = dict(resume=True, load_from=str(tmp_path / before / 'epoch_1.pth'))
        runner, recorder = run(folder, **cfg, hooks=hooks, **start)
        assert re.findall(r'resume: (.*)', log_of(folder)) == ['the settings are those of the checkpoint']
        assert len(runner.optim_wrapper.optimizer.param_groups) == (groups if hooks is MERGED else 10)
        assert trace(recorder, runner) == {i: options for i, options in expected.items() if i >= 3}
        assert_same_end((tmp_path / 'whole', whole), (folder, runner))


@pytest.mark.parametrize('hooks', [HOOKS, MERGED])
@pytest.mark.parametrize(
    ('changed', 'lines'),
    [
        (dict(paramwise_cfg=dict(flat_decay_mult=0.5)), ['weight_decay 0.0 -> 0.05']),
        (dict(paramwise_cfg=dict(flat_decay_mult=0.0, bias_lr_mult=2.0)), ['lr 0.1 -> 0.2']),
        (dict(paramwise_cfg=dict(flat_decay_mult=1.0)), ['weight_decay 0.0 -> 0.1']),
    ],
)
def test_groups_that_this_config_merges_otherwise(changed, lines, hooks, tmp_path):
    """Options from the config, moments from the checkpoint, by parameter."""
    cfg = dict(**FOUR, optimizer=ADAMW)
    run(tmp_path / 'first', **cfg, wrapper=FLAT, hooks=hooks)
    start = dict(resume=True, load_from=str(tmp_path / 'first' / 'epoch_1.pth'))
    apart, recorder = run(tmp_path / 'apart', **cfg, wrapper=changed, **start)
    resumed, merged_recorder = run(tmp_path / 'on', **cfg, wrapper=changed, hooks=MERGED, **start)
    whole, whole_recorder = run(tmp_path / 'whole', **cfg, wrapper=changed)
    expected = {i: options for i, options in trace(whole_recorder, whole).items() if i >= 3}
    assert trace(recorder, apart) == trace(merged_recorder, resumed) == expected
    assert_same_end((tmp_path / 'apart', apart), (tmp_path / 'on', resumed))
    assert all(state['step'] == 12 for state in saved(tmp_path / 'on' / 'epoch_4.pth')['optimizer']['state'].values())
    told = re.findall(r'resume: (.*)', log_of(tmp_path / 'on'))
    assert len(told) == 2 and told[0].split(' ')[0] == lines[0].split(' ')[0]


@pytest.mark.parametrize('before', [None, True])
def test_fused_switched_by_a_resumed_run(before, tmp_path):
    cfg = dict(**FOUR, wrapper=FLAT, hooks=MERGED)
    after = None if before else True
    whole, _ = run(tmp_path / 'whole', **cfg, optimizer={**ADAMW, 'fused': before})
    start = dict(resume=True, load_from=str(tmp_path / 'whole' / 'epoch_1.pth'))
    resumed, recorder = run(tmp_path / 'on', **cfg, optimizer={**ADAMW, 'fused': after}, **start)
    assert re.findall(r'resume: (.*)', log_of(tmp_path / 'on'))[:-1] == [f'fused {before} -> {after}']
    assert {group['fused'] for groups in recorder.groups.values() for group in groups} == {after}
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_parameters_that_the_checkpoint_does_not_name_are_refused(tmp_path):
    cfg = dict(**FOUR, optimizer=ADAMW, wrapper=FLAT, hooks=MERGED)
    run(tmp_path / 'first', **cfg)
    checkpoint = saved(tmp_path / 'first' / 'epoch_1.pth')
    checkpoint['optimizer']['param_groups'][0]['param_names'][0] = 'other.weight'
    torch.save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(
        ValueError, match=r'has 2 of 10; only the checkpoint has other.weight; only this run has body.0.weight: use the'
    ):
        run(tmp_path / 'on', **cfg, resume=True, load_from=str(tmp_path / 'other.pth'))


@OPTIMIZERS.register_module()
class CountingSGD(torch.optim.SGD):
    """Counts the steps of each group in it."""

    def step(self, closure=None):
        for group in self.param_groups:
            group['k'] = group.get('k', 0) + 1
        return super().step(closure)


def test_what_an_optimizer_keeps_of_merged_groups_has_to_be_the_same(tmp_path):
    cfg = dict(**FOUR, optimizer=dict(type='CountingSGD', lr=0.01, weight_decay=0.1), wrapper=FLAT)
    run(tmp_path / 'first', **cfg)
    start = dict(resume=True, load_from=str(tmp_path / 'first' / 'epoch_1.pth'))
    runner, _ = run(tmp_path / 'on', **cfg, hooks=MERGED, **start)
    assert [group['k'] for group in runner.optim_wrapper.optimizer.param_groups] == [12, 12]
    checkpoint = saved(tmp_path / 'first' / 'epoch_1.pth')
    checkpoint['optimizer']['param_groups'][4]['k'] = 7
    torch.save(checkpoint, tmp_path / 'first' / 'epoch_1.pth')
    message = (
        "the optimizer's k is 3 in one of the checkpoint's parameter groups and 7 in another, which this run merges: leave"
    )
    with pytest.raises(ValueError, match=message):
        run(tmp_path / 'refused', **cfg, hooks=MERGED, **start)


def test_every_scheduler_moves_merged_groups_as_it_does_single_ones(all_schedulers):
    def build(cfg, merge):
        model = Deep()
        wrapper = build_optim_wrapper(model, dict(optimizer=ADAMW, **FLAT))
        scheduler = PARAM_SCHEDULERS.build(dict(cfg), default_args=dict(optimizer=wrapper, epoch_length=7))
        if merge:
            merge_equal_groups(wrapper, [scheduler], layout_of(wrapper, model))
            assert len(wrapper.param_groups) == 3
        return wrapper, scheduler, layout_of(wrapper, model)

    for cfg in all_schedulers:
        pair = [build(cfg, merge) for merge in (False, True)]
        for step in range(8):
            found = [by_name(wrapper, layout) for wrapper, _, layout in pair]
            assert found[0] == found[1], (cfg, step)
            assert pair[0][0].base_param_settings == pair[1][0].base_param_settings
            for _, scheduler, _ in pair:
                scheduler.step(*[dict(score=1.0)] * ('Plateau' in cfg['type']))


def test_groups_that_a_scheduler_treats_differently_are_not_equal():
    model = Deep()
    wrapper = build_optim_wrapper(model, dict(optimizer=ADAMW, **FLAT))
    least = [0.0] * 9 + [0.01]
    plateau = dict(type='ReduceOnPlateauLR', monitor='score', min_value=least)
    scheduler = PARAM_SCHEDULERS.build(plateau, default_args=dict(optimizer=wrapper))
    merge_equal_groups(wrapper, [scheduler], layout_of(wrapper, model))
    assert layout_of(wrapper, model)[2] == ['head.bias'] and scheduler.min_values == [0.0, 0.0, 0.01, 0.01]


def test_the_log_has_a_line_a_group(tmp_path):
    run(tmp_path / 'merged', **FOUR, optimizer=ADAMW, wrapper=FLAT, hooks=MERGED)
    log = log_of(tmp_path / 'merged')
    assert 'paramwise_options' not in log and 'is skipped since' not in log
    assert re.findall(r'INFO - ((?:optim_wrapper: |\d+ of the).*)', log) == [
        'optim_wrapper: 10 parameter groups, merged into 2, equal in every option',
        'optim_wrapper: group 0: 3 parameters, lr=0.1, weight_decay=0.1',
        'optim_wrapper: group 1: 7 parameters, lr=0.1, weight_decay=0',
        '2 of the 12 parameters are in no optimizer: requires_grad=False',
    ]
    assert re.search(r'Epoch\(train\).*base_lr: \S+ +lr: ', log)  # as of single groups


def test_turned_off_it_leaves_groups_and_log_as_they_are(tmp_path):
    hooks = dict(merge=dict(type='MergeParamGroupsHook', enable=False))
    runner, _ = run(tmp_path, **FOUR, optimizer=ADAMW, wrapper=FLAT, train=False)
    runner.register_hook(hooks['merge'])
    runner.train()
    assert len(runner.optim_wrapper.optimizer.param_groups) == 10
    log = log_of(tmp_path)
    assert log.count('paramwise_options -- ') == 7 and log.count('is skipped since its requires_grad=False') == 2
    assert 'param_names' not in saved(tmp_path / 'epoch_4.pth')['optimizer']['param_groups'][0]


@OPTIMIZERS.register_module()
class Outer(torch.optim.SGD):
    """Steps an optimizer of its own groups, as ZeroRedundancyOptimizer does."""

    def __init__(self, params, lr, weight_decay):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.inner = torch.optim.SGD([dict(group) for group in self.param_groups], lr=lr)


def test_an_optimizer_with_another_inside_is_left_as_it_is(tmp_path):
    runner, _ = run(tmp_path, **FOUR, optimizer=dict(type='Outer', lr=0.01, weight_decay=0.1), wrapper=FLAT, hooks=MERGED)
    assert len(runner.optim_wrapper.optimizer.param_groups) == 10
    assert '10 parameter groups, not merged: the SGD inside Outer has groups of its own' in log_of(tmp_path)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TwoOptimizers:
    """One of the body and one of the head, each made by MMEngine's constructor."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.cfg = optim_wrapper_cfg

    def __call__(self, model):
        from mmengine.optim import OptimWrapperDict

        return OptimWrapperDict(
            **{name: build_optim_wrapper(getattr(model, name), self.cfg[name]) for name in ('body', 'head')}
        )


class TwoSteps(Deep):
    def train_step(self, data, optim_wrapper):
        inputs = torch.stack(list(data['inputs']))
        optim_wrapper['body'].update_params(self.body[2:](self.body[0](inputs)).square()[:, 0].mean())  # not of the first norm
        optim_wrapper['head'].update_params(self.head(self.body(inputs).detach()).square().mean())
        return dict(loss=torch.zeros(()))


def test_several_optimizers(tmp_path, monkeypatch):
    monkeypatch.setattr('helpers.toy_runs.Model', TwoSteps)
    schedulers = dict(body=WARM, head=[dict(type='StepLR', step_size=2)])
    written = dict(constructor='TwoOptimizers', body=dict(optimizer=ADAMW, **FLAT), head=dict(optimizer=ADAMW, **FLAT))

    def train(folder, hooks, **kwargs):
        cfg = {**FOUR, 'schedulers': schedulers, 'cfg': Config(dict(param_scheduler=schedulers, optim_wrapper=written))}
        runner, recorder = run(folder, **cfg, hooks=hooks, train=False, **kwargs)
        recorder.before_train_iter = lambda runner, batch_idx, data_batch: data_batch.pop('index')
        runner.optim_wrapper = written
        runner.train()
        return runner, saved(folder / 'epoch_4.pth')

    whole, expected = train(tmp_path / 'whole', HOOKS)
    assert {name: len(w.optimizer.param_groups) for name, w in whole.optim_wrapper.items()} == dict(body=8, head=2)
    start = dict(resume=True, load_from=str(tmp_path / 'whole' / 'epoch_1.pth'))
    merged, found = train(tmp_path / 'on', MERGED, **start)
    assert {name: len(w.optimizer.param_groups) for name, w in merged.optim_wrapper.items()} == dict(body=2, head=2)
    assert len(found['optimizer']['body']['state']) == 6
    assert all(torch.equal(value, found['state_dict'][name]) for name, value in expected['state_dict'].items())
    assert found['optimizer']['body']['param_groups'][0]['param_names'] == ['body.0.weight', 'body.2.weight']
    assert 'optim_wrapper.body: 8 parameter groups, merged into 2' in log_of(tmp_path / 'on')
    assert len(found['param_schedulers']['body'][0]['base_values']) == 3


def test_tensors_are_equal_if_they_are_the_same():
    rates = [torch.tensor(0.1), torch.tensor(0.1)]
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1, bias=False) for _ in range(3)))
    groups = [dict(params=[layer.weight], lr=rates[i // 2]) for i, layer in enumerate(model)]
    wrapper = OptimWrapper(torch.optim.AdamW(groups))
    merge_equal_groups(wrapper, [], layout_of(wrapper, model))
    assert layout_of(wrapper, model) == [['0.weight', '1.weight'], ['2.weight']]
