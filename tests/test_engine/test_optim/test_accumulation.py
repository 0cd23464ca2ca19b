"""Accumulated gradients: every checkpoint is at a step, and a resumed run ends where an uninterrupted one does."""

import warnings

import pytest
import torch
from helpers.toy_runs import Data, Model, Recorder, log_of, run, saved
from mmengine.runner import FlexibleRunner

THREE = dict(wrapper=dict(accumulative_counts=3))


def ends(folder, other, name):
    first, second = saved(folder / name), saved(other / name)
    assert first['optimizer']['state'][0]['step'] == second['optimizer']['state'][0]['step']
    return all(torch.equal(value, second['state_dict'][key]) for key, value in first['state_dict'].items())


def test_every_epoch_ends_with_a_step_and_resumes_to_the_bit(tmp_path):
    """10 iterations an epoch by threes: groups of 3, 3, 3 and 1."""
    run(tmp_path / 'whole', train_cfg=dict(max_epochs=4), **THREE)
    for epoch in (1, 2, 3):
        assert saved(tmp_path / 'whole' / f'epoch_{epoch}.pth')['optimizer']['state'][0]['step'] == 4 * epoch
        checkpoint = str(tmp_path / 'whole' / f'epoch_{epoch}.pth')
        run(tmp_path / f'from{epoch}', train_cfg=dict(max_epochs=4), **THREE, resume=True, load_from=checkpoint)
        assert ends(tmp_path / 'whole', tmp_path / f'from{epoch}', 'epoch_4.pth')
        assert 'Gradient' not in log_of(tmp_path / f'from{epoch}')  # MMEngine's warning of what is not so


def test_the_last_group_of_an_epoch_counts_its_own_iterations(tmp_path):
    """An epoch of 10 by threes ends with the step of a single iteration, unscaled."""
    sgd = dict(optimizer=dict(type='SGD', lr=0.01), train_cfg=dict(max_epochs=1))
    runner, recorder = run(tmp_path, **sgd, **THREE)

    model, samples = Model(), runner.train_dataloader.dataset.samples
    for start in range(0, 10, 3):
        batches = recorder.samples[start : start + 3]
        loss = sum(model.forward(samples[batch])['loss'] for batch in batches) / len(batches)
        grads = torch.autograd.grad(loss, list(model.parameters()))
        for weight, grad in zip(model.parameters(), grads, strict=True):
            weight.data -= 0.01 * grad
    for ours, expected in zip(runner.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_loop_over_iterations_resumes_to_the_bit_from_every_checkpoint(tmp_path):
    cfg = dict(train_cfg=dict(max_iters=20), checkpoint=dict(interval=6), **THREE)
    run(tmp_path / 'whole', **cfg)
    for start in (6, 12, 18):
        checkpoint = str(tmp_path / 'whole' / f'iter_{start}.pth')
        run(tmp_path / f'from{start}', **cfg, resume=True, load_from=checkpoint)
        assert ends(tmp_path / 'whole', tmp_path / f'from{start}', 'iter_20.pth')


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(train_cfg=dict(max_iters=20), checkpoint=dict(interval=5)),
         r'CheckpointHook.interval=5 would save between two optimizer steps.* multiple of .*=3: use 3 or 6'),
        (dict(train_cfg=dict(max_iters=20), checkpoint=dict(interval=2)), 'interval=2 .*: use 3$'),
        (dict(train_cfg=dict(max_iters=20), checkpoint=dict(interval=6, save_begin=4)), 'save_begin=4 .*: use 3 or 6'),
        (dict(train_cfg=dict(max_epochs=2), checkpoint=dict(by_epoch=False, interval=6)),
         r'interval=6 iterations .*\(accumulative_counts=3, 10 iterations an epoch\): save by_epoch=True'),
    ],
)  # fmt: skip
def test_an_interval_between_two_steps_is_refused_with_the_nearest(cfg, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **cfg, **THREE)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('counts', [2, 3])
def test_a_schedule_that_begins_before_the_first_step_is_no_fault_where_gradients_accumulate(counts, tmp_path):
    rates = dict(type='LinearLR', by_epoch=False, end=6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        filters = list(warnings.filters)
        run(tmp_path, train_cfg=dict(max_iters=6), checkpoint=dict(interval=counts), schedulers=rates,
            wrapper=dict(accumulative_counts=counts))  # fmt: skip
        assert not [one for one in caught if 'before `optimizer.step()`' in str(one.message)]
        assert list(warnings.filters) == filters  # the next training warns where it is true
        runner, _ = run(tmp_path / 'wrong', train_cfg=dict(max_iters=6), schedulers=rates, train=False)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.build_param_scheduler(rates)[0].step()
    assert len([one for one in caught if 'before `optimizer.step()`' in str(one.message)]) == 1


def test_the_score_that_saves_anew_comes_at_a_step(tmp_path):
    val = dict(
        val_cfg=dict(type='ValLoop'), val_evaluator=dict(type='Evaluator', metrics=[]),
        val_dataloader=dict(dataset=[1], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)),
    )  # fmt: skip
    cfg = dict(train_cfg=dict(max_iters=20, val_interval=4), checkpoint=dict(interval=6, save_best='score', rule='greater'))
    with pytest.raises(ValueError, match=r'train_cfg.val_interval with save_best=4 would .*: use 3 or 6'):
        run(tmp_path, **cfg, **val, **THREE)


def test_whole_epochs_saved_by_iterations_are_at_steps(tmp_path):
    cfg = dict(train_cfg=dict(max_epochs=4), checkpoint=dict(by_epoch=False, interval=10), **THREE)
    run(tmp_path / 'whole', **cfg)
    run(tmp_path / 'resumed', **cfg, resume=True, load_from=str(tmp_path / 'whole' / 'iter_20.pth'))
    assert ends(tmp_path / 'whole', tmp_path / 'resumed', 'iter_40.pth')


def test_a_start_between_two_steps_is_told(tmp_path):
    run(tmp_path, train_cfg=dict(max_iters=20), checkpoint=dict(interval=5))
    run(tmp_path / 'on', train_cfg=dict(max_iters=20), checkpoint=dict(interval=6), **THREE, resume=True,
        load_from=str(tmp_path / 'iter_5.pth'))  # fmt: skip
    log = log_of(tmp_path / 'on')
    assert (
        'iteration 5 is no multiple of optim_wrapper.accumulative_counts=3: the next step comes after 1 more or at '
        'the end, without the gradients of the 2 before'
    ) in log
    assert 'GradientCumulativeOptimizerHook' not in log
    # steps at 6, 9, 12, 15, 18 and 20, so that checkpoints still lie at steps
    counts = [saved(tmp_path / 'on' / f'iter_{i}.pth')['optimizer']['state'][0]['step'] - 5 for i in (6, 12, 18, 20)]
    assert counts == [1, 3, 5, 6]
    run(tmp_path / 'again', train_cfg=dict(max_iters=20), checkpoint=dict(interval=6), **THREE, resume=True,
        load_from=str(tmp_path / 'on' / 'iter_12.pth'))  # fmt: skip
    assert ends(tmp_path / 'on', tmp_path / 'again', 'iter_20.pth')


def test_a_start_between_two_steps_of_an_epoch_is_told(tmp_path):
    run(tmp_path, train_cfg=dict(max_epochs=2), checkpoint=dict(by_epoch=False, interval=15))
    run(tmp_path / 'on', train_cfg=dict(max_epochs=2), **THREE, resume=True, load_from=str(tmp_path / 'iter_15.pth'))
    assert 'iteration 5 of the epoch is no multiple of optim_wrapper.accumulative_counts=3: the next' in log_of(tmp_path / 'on')
    # steps after 6, 9 and 10 iterations of the epoch
    assert saved(tmp_path / 'on' / 'epoch_2.pth')['optimizer']['state'][0]['step'] == 15 + 3


def test_a_scale_that_leaves_out_the_accumulation_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"MMEngine's auto_scale_lr does not count optim_wrapper\.accumulative_counts"):
        run(tmp_path, train_cfg=dict(max_epochs=1), **THREE, auto_scale_lr=dict(enable=True, base_batch_size=8))


@pytest.mark.parametrize('enable', [True, False])
def test_it_is_refused_under_the_flexible_runner_too(enable, tmp_path):
    runner = FlexibleRunner(
        Model(), work_dir=str(tmp_path), experiment_name=f'flexible-{enable}', default_scope='mmengine',
        train_dataloader=dict(
            dataset=Data(16), batch_size=4, num_workers=0, sampler=dict(type='EpochSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1), auto_scale_lr=dict(enable=enable, base_batch_size=8),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2),
        custom_hooks=[dict(type='AccumulationHook'), Recorder()],
    )  # fmt: skip
    if enable:
        with pytest.raises(ValueError, match=r"MMEngine's auto_scale_lr does not count optim_wrapper\.accumulative_counts"):
            runner.train()
    else:
        runner.train()
    assert bool(list(tmp_path.glob('*.pth'))) != enable
