"""What a step of training waits for, and that the log does not show it."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_training import MODEL_CONFIGS, ROOT, Copies, Moments, build_model, build_training, profile_iterations
from helpers.toy_runs import saved
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger

from usp_mm.datasets import EpochIndex
from usp_mm.engine import DeferredRuntimeInfoHook
from usp_mm.engine.records.scalar_history import KEPT, ScalarHistory, keep
from usp_mm.models import data_preprocessor, random_keys

kinds = pytest.mark.parametrize('kind', MODEL_CONFIGS)


@kinds
def test_a_step_reads_nothing_from_the_device(kind, tmp_path):
    runner = build_training(kind, tmp_path)
    operators = profile_iterations(runner, {5})[5]
    assert len(operators) > 500
    assert [name for name in operators if name in ('aten::item', 'aten::_local_scalar_dense', 'aten::nonzero')] == []
    assert {'train/loss', 'train/grad_norm', 'train/lr'} <= runner.message_hub.log_scalars.keys()


@kinds
def test_a_step_copies_inputs_keys_and_labels_once(kind, monkeypatch):
    made, to_device = [], random_keys.to_device
    for module in (random_keys, data_preprocessor):
        monkeypatch.setattr(module, 'to_device', lambda *args: made.append(args[0].dtype) or to_device(*args))
    model, data = build_model(kind).to('meta'), Moments(4)
    batch = default_collate([data[EpochIndex(i, 1, 2)] for i in range(4)])
    with Copies() as copies:
        loss = model.train()._run_forward(model.data_preprocessor(batch, True), mode='loss')['loss']
    assert loss.device.type == 'meta'
    labels = [] if kind == 'pretraining' else [(4,)]
    assert copies.shapes == [(4, 8, 8, 8), (2, 4), *labels]
    assert made == [torch.int64] * (1 + len(labels))


def scalars(folder: Path) -> list[dict]:
    """The log without what differs between two equal runs."""
    lines = [line for path in sorted(folder.glob('*/vis_data/scalars.json')) for line in path.read_text().splitlines()]
    return [{k: v for k, v in json.loads(line).items() if k not in ('time', 'data_time', 'memory')} for line in lines]


@pytest.mark.parametrize(('kind', 'interval'), [('pretraining', 3), ('generator', 1)])
def test_log_and_checkpoint_are_those_of_mmengines_hook(kind, interval, tmp_path):
    logs, hubs = [], []
    for name in ('RuntimeInfoHook', 'DeferredRuntimeInfoHook'):
        folder = tmp_path / name
        settings = dict(interval=interval, default_hooks=dict(runtime_info=dict(type=name)))
        build_training(kind, folder, iterations=5, **settings).train()
        resumed = str(folder / 'iter_5.pth')
        build_training(kind, folder, iterations=8, resume=True, load_from=resumed, **settings).train()
        logs.append(scalars(folder))
        hubs.append(saved(folder / 'iter_8.pth')['message_hub']['log_scalars'])
    assert logs[0] == logs[1] and len(logs[0]) == 8 // interval
    assert {'loss', 'grad_norm', 'lr', 'iter', 'step'} <= logs[0][-1].keys()
    assert hubs[0].keys() == hubs[1].keys() >= {'train/loss', 'train/grad_norm', 'train/lr', 'train/time'}
    for name, plain in hubs[0].items():
        ours = hubs[1][name]
        assert type(ours) is HistoryBuffer and ours.max_length == plain.max_length
        for one, other in zip(ours.data, plain.data, strict=True):
            assert len(one) == 8 and one.dtype == other.dtype
            assert np.array_equal(one, other) or name in ('train/time', 'train/data_time')


class Reader(Hook):
    """Reads the message hub after each iteration, as a scheduler that watches the loss does."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.losses: list[tuple[float, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append((runner.message_hub.get_scalar('train/loss').current(), outputs['loss'].item()))


def test_whoever_reads_between_two_logs_gets_the_latest_loss(tmp_path):
    reader = Reader()
    build_training('pretraining', tmp_path, interval=100, custom_hooks=[reader]).train()
    assert len({loss for loss, _ in reader.losses}) == len(reader.losses) == 8
    assert all(read == given for read, given in reader.losses)


def test_gradients_that_are_clipped_by_value_have_no_norm(tmp_path):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(type='value', clip_value=0.5))
    runner = build_training('pretraining', tmp_path, iterations=2, optim_wrapper=wrapper)
    runner.train()
    assert runner.optim_wrapper.clip_func is torch.nn.utils.clip_grad_value_
    assert not [name for name in runner.message_hub.log_scalars if 'grad' in name]


@pytest.mark.slow
def test_processes_meet_where_the_mean_loss_is_read(tmp_path):
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    paths = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    env = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'}
    script = Path(__file__).with_name('loss_share.py')
    done = subprocess.run([*launcher, script, tmp_path], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1))
    for interval in (1, 3):
        theirs, ours = first[f'RuntimeInfoHook {interval}'], first[f'DeferredRuntimeInfoHook {interval}']
        other = second[f'DeferredRuntimeInfoHook {interval}']
        assert ours['own'] != other['own']
        means = ((torch.tensor(ours['own']) + torch.tensor(other['own'])) / 2).tolist()
        assert means == ours['saved'] == other['saved'] == theirs['saved']
        assert len(ours['logged']) == 7 // interval and ours['logged'] == theirs['logged']
        assert theirs['collectives'] == 7
        assert ours['collectives'] == {1: 7, 3: 3}[interval]  # the seventh iteration saves


# ------------------------------------------------------------------ the history itself


def test_a_history_takes_what_mmengines_takes_and_tensors():
    ours, plain = ScalarHistory(), HistoryBuffer()
    for value in (0.1, torch.tensor(0.3), torch.tensor([0.7], dtype=torch.bfloat16), np.float32(0.2), torch.tensor(2)):
        ours.update(value, 2)
        plain.update(value.item() if hasattr(value, 'item') else value, 2)
        assert ours.current() == plain.current()
    for statistic in ('mean', 'max', 'min'):
        assert getattr(ours, statistic)(3) == getattr(plain, statistic)(3)
    for made in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):  # noqa: S301
        assert type(made) is HistoryBuffer and np.array_equal(made.data, plain.data)
    with pytest.raises(TypeError, match='numbers and tensors of one element, got str'):
        ours.update('0.1')


def test_a_history_keeps_copies_and_not_too_many():
    history, loss = ScalarHistory(), torch.zeros((), requires_grad=True)
    history.max_length = KEPT + 2
    for _ in range(KEPT - 1):
        history.update(loss)
    assert len(history.unread()) == KEPT - 1 and history.unread()[0].grad_fn is None
    with torch.no_grad():
        loss += 1
    history.update(loss)
    assert history.unread() == []
    for _ in range(3):
        history.update(loss)
    logs, counts = history.data
    assert logs.tolist() == [0.0] * (KEPT - 2) + [1.0] * 4 and len(counts) == KEPT + 2


def test_a_loss_of_one_process_is_told_once(monkeypatch):
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: warnings.append(message))
    hub = MessageHub.get_instance('told')
    for value in (1.0, 2.0, 3.0):
        keep(hub, 'train/loss', torch.tensor(value), own=True)
        assert hub.get_scalar('train/loss').current() == value
    assert len(warnings) == 1 and 'it is of this process alone, not the mean of all' in warnings[0]
    assert hub.state_dict()['log_scalars']['train/loss'].data[0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ('history', 'processor', 'kept'),
    [
        (3, {}, 10),  # the log processor's own window is 10
        (12, {}, 12),
        (3, dict(window_size=4), 4),
        (3, dict(custom_cfg=[dict(data_src='loss', log_name='mean_loss', method_name='mean', window_size=15)]), 15),
        (3, dict(custom_cfg=[dict(data_src='loss', log_name='mean_loss', method_name='mean', window_size='global')]), 20),
        (None, {}, 20),
    ],
)
def test_a_history_keeps_what_the_log_reads(history, processor, kept, tmp_path):
    hook = dict(type='DeferredRuntimeInfoHook', history=history)
    settings = dict(log_processor=dict(by_epoch=False, **processor), default_hooks=dict(runtime_info=hook))
    build_training('pretraining', tmp_path, iterations=20, interval=1, **settings).train()
    hub = saved(tmp_path / 'iter_20.pth')['message_hub']['log_scalars']
    names = ('train/loss', 'train/grad_norm', 'train/lr', 'train/time', 'train/data_time')
    assert {name: len(hub[name].data[0]) for name in names} == dict.fromkeys(names, kept)
    plain = dict(settings, default_hooks=dict(runtime_info=dict(type='RuntimeInfoHook')))
    build_training('pretraining', tmp_path / 'plain', iterations=20, interval=1, **plain).train()
    assert scalars(tmp_path) == scalars(tmp_path / 'plain')


def test_a_history_of_nothing_is_refused():
    with pytest.raises(ValueError, match='history=0: it must be at least 1, or None for all'):
        DeferredRuntimeInfoHook(history=0)
