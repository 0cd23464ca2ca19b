"""Runs that cannot be resumed are refused before they train."""

import pytest
import torch
from helpers.resumed_runs import EIGHT, FORTY
from helpers.toy_runs import run, saved


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
def test_what_cannot_go_on_is_refused(changed, message, first_run, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **{**EIGHT, **changed}, resume=True, load_from=str(first_run / 'epoch_3.pth'))
    assert not list(tmp_path.glob('*.pth'))


def test_a_checkpoint_without_optimizer_is_refused(first_run, tmp_path):
    checkpoint = saved(first_run / 'epoch_3.pth')
    del checkpoint['optimizer']  # as CheckpointHook's save_best leaves it
    torch.save(checkpoint, tmp_path / 'best.pth')
    with pytest.raises(ValueError, match='holds no state of the optimizer, so a run cannot be resumed from it: start from its'):
        run(tmp_path / 'run', **EIGHT, resume=True, load_from=str(tmp_path / 'best.pth'))


@pytest.mark.parametrize(('key', 'what'), [('optimizer', 'state of the optimizer'), ('message_hub', 'message hub')])
def test_a_published_checkpoint_without_settings_is_refused(key, what, first_run, tmp_path):
    checkpoint = saved(first_run / 'epoch_3.pth')
    kept = ('meta', 'state_dict') if key == 'optimizer' else ('meta', 'state_dict', 'optimizer')
    checkpoint = {name: checkpoint[name] for name in kept}
    del checkpoint['meta']['training_settings']
    torch.save(checkpoint, tmp_path / 'published.pth')
    with pytest.raises(ValueError, match=f'the checkpoint holds no {what}, so a run cannot be resumed from it: start from its'):
        run(tmp_path / 'run', **EIGHT, resume=True, load_from=str(tmp_path / 'published.pth'))


def test_half_the_batch_without_twice_the_iterations_is_refused(tmp_path):
    run(tmp_path, **FORTY)
    message = r'samples of 48 iterations are trained on, train_cfg.max_iters is 40: .*\(80 for the checkpoint\'s run\)'
    with pytest.raises(ValueError, match=message):
        run(tmp_path / 'half', **{**FORTY, 'batch': 2}, resume=True, load_from=str(tmp_path / 'iter_24.pth'))


def test_within_an_epoch_with_a_sampler_that_starts_nowhere_else(tmp_path):
    within = {**EIGHT, 'checkpoint': dict(by_epoch=False, interval=4), 'sampler': 'DefaultSampler'}
    run(tmp_path, **within)
    with pytest.raises(ValueError, match=r"sampler DefaultSampler cannot start: use sampler=dict\(type='EpochSampler'\)"):
        run(tmp_path / 'resumed', **within, resume=True, load_from=str(tmp_path / 'iter_12.pth'))
