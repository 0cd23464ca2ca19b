"""Toy trainings whose processes share the optimizer's state, and others to compare with: `python sharded_share.py FOLDER`."""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from helpers import toy_runs
from helpers.forked_world import forked_world
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim.optimizer.zero_optimizer import ZeroRedundancyOptimizer

from usp_mm.engine.checkpointing.preemption import noting_signals
from usp_mm.engine.hooks.finite_hook import _tensors
from usp_mm.engine.optim.sharding import gathered, sharded
from usp_mm.engine.starting.build_runner import _check_saver

FOLDER = Path(sys.argv[1])
HOOKS = (*toy_runs.HOOKS, 'MergeParamGroupsHook', 'FiniteHook', 'DeferredRuntimeInfoHook', 'PreemptionHook')
PLAIN = dict(type='AdamW', lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
SHARED = {**PLAIN, 'type': 'ZeroRedundancyOptimizer', 'optimizer_type': 'AdamW'}
SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5),
]


class Deep(toy_runs.Model):
    """Two layers: two groups of two parameters with `paramwise_cfg`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 1))


toy_runs.Model = Deep


class Looks(Hook):
    """What a process holds before the first iteration: its part, and in the first process all of the state."""

    def before_train(self, runner: Any) -> None:
        optimizer = runner.optim_wrapper.optimizer
        with gathered([optimizer]):
            if torch.distributed.get_rank() == 0:
                torch.save(optimizer.state_dict()['state'], Path(runner.work_dir, 'resumed.pth'))


class Asks(Hook):
    """Ask the second process to end in the ninth iteration."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 8 and torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def train(name: str, optimizer: dict, batch: int = 4, hooks: tuple[Hook, ...] = (), **kwargs: Any) -> Any:
    if torch.distributed.is_initialized():
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None, gradient_as_bucket_view=True)
        kwargs.update(launcher='pytorch', cfg=Config(dict(model_wrapper_cfg=wrapper, param_scheduler=SCHEDULERS)))
    runner, _ = toy_runs.run(
        FOLDER / name, train_cfg=dict(max_epochs=4), num=48, batch=batch, optimizer=dict(optimizer), schedulers=SCHEDULERS,
        hooks=HOOKS, train=False, checkpoint=dict(backend_args=dict(backend='atomic')), **kwargs,
        wrapper=dict(
            clip_grad=dict(max_norm=1.0), accumulative_counts=2, paramwise_cfg=dict(bias_decay_mult=0.0),
        ),
    )  # fmt: skip
    for hook in hooks:
        runner.register_hook(hook)
    with noting_signals():
        runner.train()
    return runner


def resumed(source: str) -> dict:
    return dict(resume=True, load_from=str(FOLDER / source))


def shared(rank: int) -> None:
    """A whole training, and what each process holds at its end."""
    runner = train('shared', SHARED)
    optimizer = runner.optim_wrapper.optimizer
    names = sorted(name for name in _tensors(runner) if name.endswith('exp_avg'))
    try:
        optimizer.state_dict()
        alone = None
    except RuntimeError as error:
        alone = str(error).split('.')[0]
    inner = next(iter(optimizer.param_groups))['params']
    try:
        sharded([ZeroRedundancyOptimizer(list(inner), 'AdamW', lr=0.1)])
        refused = None
    except ValueError as error:
        refused = str(error)
    config = Config(dict(optim_wrapper=dict(optimizer=SHARED)))
    try:
        _check_saver(config, SimpleNamespace(hooks=[CheckpointHook()]))
        unsaved = None
    except ValueError as error:
        unsaved = str(error)
    _check_saver(config, runner)
    found = dict(unsaved=unsaved, names=names, alone=alone, refused=refused, gathered=len(optimizer._all_state_dicts))
    (FOLDER / f'shared{rank}.json').write_text(json.dumps(found))


def main() -> None:
    codes = {}
    codes['plain'] = forked_world(2, lambda rank: train('plain', PLAIN))
    codes['shared'] = forked_world(2, shared)
    codes['views'] = forked_world(2, lambda rank: train('views', {**SHARED, 'parameters_as_bucket_view': True}))
    train('plain-1', PLAIN, batch=8, **resumed('plain/epoch_2.pth'))
    train('shared-1', SHARED, batch=8, **resumed('shared/epoch_2.pth'))  # without a launcher
    codes['plain-3'] = forked_world(3, lambda rank: train('plain-3', SHARED, hooks=(Looks(),), **resumed('plain/epoch_2.pth')))
    codes['shared-3'] = forked_world(
        3, lambda rank: train('shared-3', SHARED, hooks=(Looks(),), **resumed('shared/epoch_2.pth'))
    )
    faster = {**SHARED, 'lr': 0.02}
    codes['faster'] = forked_world(2, lambda rank: train('faster', faster, **resumed('shared/epoch_2.pth')))
    codes['asked'] = forked_world(2, lambda rank: train('asked', SHARED, hooks=(Asks(),)))
    last = (FOLDER / 'asked/last_checkpoint').read_text()
    codes['again'] = forked_world(2, lambda rank: train('asked', SHARED, **resumed(f'asked/{last}')))
    (FOLDER / 'codes.json').write_text(json.dumps(dict(codes=codes, last=last)))


if __name__ == '__main__':
    main()
