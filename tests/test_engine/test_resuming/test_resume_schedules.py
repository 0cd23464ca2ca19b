"""Schedules of a resumed run go on where they were, or as those of a whole run of its config."""

import pytest
import torch
from helpers.resumed_runs import EIGHT, assert_follows, told
from helpers.toy_runs import run, saved
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook

from usp_mm.engine.resuming.schedule import advance

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


def test_schedulers_whose_classes_were_not_kept_are_compared_as_they_were_built(first_run, tmp_path):
    checkpoint = saved(first_run / 'epoch_3.pth')
    checkpoint['meta']['training_settings']['param_scheduler'] = dict(by_epoch=True, gamma=0.5)
    torch.save(checkpoint, tmp_path / 'old.pth')
    run(tmp_path / 'on', **EIGHT, resume=True, load_from=str(tmp_path / 'old.pth'))
    assert told(tmp_path / 'on') == ['the settings are those of the checkpoint']


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
