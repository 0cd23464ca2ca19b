"""Iteration-based training that resumes at the next sample."""

from itertools import islice, repeat

import pytest
from mmengine.dataset import DefaultSampler

from usp_mm.datasets import EpochInfiniteSampler
from usp_mm.engine.loops import _PastFirst


def sampler(num, rank=0, world_size=1, seed=3, **kwargs):
    made = EpochInfiniteSampler(range(num), seed=seed, **kwargs)
    made.rank, made.world_size = rank, world_size
    return made


def first(made, num):
    return [(int(index), index.epoch, index.seed) for index in islice(made, num)]


def test_each_epoch_holds_every_sample_once_in_an_order_of_its_own():
    items = first(sampler(7), 21)
    epochs = [items[i : i + 7] for i in (0, 7, 14)]
    for epoch, part in enumerate(epochs):
        assert sorted(index for index, _, _ in part) == list(range(7))
        assert {(e, s) for _, e, s in part} == {(epoch, 3)}
    assert [i for i, _, _ in epochs[0]] != [i for i, _, _ in epochs[1]]
    assert first(sampler(4, shuffle=False), 6) == [(i % 4, i // 4, 3) for i in range(6)]


@pytest.mark.parametrize('num', [1, 3, 7, 10])
@pytest.mark.parametrize('world_size', [2, 3, 4])
def test_processes_take_turns_in_the_order_of_one_process(num, world_size):
    whole = first(sampler(num), 30 * world_size)
    parts = [first(sampler(num, rank, world_size), 30) for rank in range(world_size)]
    assert [item for turn in zip(*parts, strict=True) for item in turn] == whole


@pytest.mark.parametrize('start', [0, 1, 6, 7, 20])
def test_seek_goes_on_where_it_stopped(start):
    moved = sampler(7, 1, 2)
    moved.seek(start)
    assert first(moved, 12) == first(sampler(7, 1, 2), start + 12)[start:]


def test_the_loop_refuses_a_sampler_that_cannot_seek():
    from mmengine.runner import Runner  # noqa: F401
    from torch.utils.data import DataLoader

    from usp_mm.engine import PositionedIterTrainLoop

    class FakeRunner:
        visualizer = None

    loader = DataLoader([1, 2], sampler=DefaultSampler([1, 2]))
    with pytest.raises(ValueError, match=r"sampler DefaultSampler: use sampler=dict\(type='EpochInfiniteSampler'\)"):
        PositionedIterTrainLoop(FakeRunner(), loader, max_iters=2)


def run_loop(max_iters, batch_size, resumed=None):
    """The samples that a loop trains on, after `resumed` = (iterations, message hub)."""
    from types import SimpleNamespace

    from mmengine.logging import MessageHub
    from torch.utils.data import DataLoader

    from usp_mm.engine import PositionedIterTrainLoop

    trained = []
    hub = MessageHub(f'loop-{max_iters}-{batch_size}-{resumed}')
    model = SimpleNamespace(train=lambda: None, train_step=lambda data, optim_wrapper: trained.extend(data.tolist()))
    dataset = range(7)
    runner = SimpleNamespace(
        model=model, optim_wrapper=None, val_loop=None, visualizer=None, message_hub=hub, call_hook=lambda *a, **k: None
    )
    loader = DataLoader(dataset, batch_size=batch_size, sampler=EpochInfiniteSampler(dataset, seed=3))
    loop = PositionedIterTrainLoop(runner, loader, max_iters=max_iters)
    if resumed:
        loop._iter, runner.message_hub = resumed
    loop.run()
    return trained, runner.message_hub


def test_a_resumed_loop_goes_on_at_the_next_sample_also_with_another_batch():
    whole, _ = run_loop(12, 3)
    first, hub = run_loop(4, 3)
    same, _ = run_loop(12, 3, (4, hub))
    assert first + same == whole
    _, hub = run_loop(4, 3)
    other, hub = run_loop(7, 4, (4, hub))
    assert first + other == whole[:24] and hub.get_info('samples_seen') == 24


def test_a_resumed_loop_does_not_say_that_it_reads_past_data_again(tmp_path):
    from helpers.toy_runs import log_of, run

    for name, loop, sampler, told in (
        ('own', dict(max_iters=4), None, False),
        ('upstream', dict(type='IterBasedTrainLoop', max_iters=4), 'InfiniteSampler', True),
    ):
        cfg = dict(train_cfg=loop, sampler=sampler, checkpoint=dict(interval=2))
        run(tmp_path / name, **cfg)
        start = str(tmp_path / name / 'iter_2.pth')
        runner, _ = run(tmp_path / f'{name}-on', **cfg, resume=True, load_from=start)
        assert ('Advance dataloader 2 steps' in log_of(tmp_path / f'{name}-on')) == told
        assert 'resumed epoch: 0, iter: 2' in log_of(tmp_path / f'{name}-on')
        runner.logger.warning('Advance dataloader')
        assert log_of(tmp_path / f'{name}-on').strip().endswith('Advance dataloader')  # said by others later


def test_past_batches_may_be_taken_in_one_call():
    batches = _PastFirst(repeat(None, 2), 'ab')
    batches.skip_iter(2)
    assert list(batches) == ['a', 'b']
