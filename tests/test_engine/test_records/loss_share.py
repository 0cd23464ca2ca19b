"""One process's share of two trainings, with MMEngine's RuntimeInfoHook and with ours: `torchrun loss_share.py FOLDER`."""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import mmengine.dist
import torch
from helpers.small_training import build_training
from helpers.toy_runs import losses
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from usp_mm.engine.records import runtime_info, scalar_history
from usp_mm.runtime.command import run_command

ITERATIONS = 7
WRAPPER = dict(type='MMDistributedDataParallel', device_ids=None)


class Own(Hook):
    """The loss of this process alone, at each iteration."""

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].item())


def train(folder: Path, hook: str, interval: int) -> dict:
    """What the first process logged and saved, what each saw, and in how many collectives it was averaged."""
    own, calls = Own(), []

    def counted(name):
        original = getattr(mmengine.dist, name)
        return lambda *args, **kwargs: calls.append(name) or original(*args, **kwargs)

    replaced = [
        patch.object(runtime_info, 'all_reduce_dict', counted('all_reduce_dict')),
        patch.object(scalar_history, 'all_reduce', counted('all_reduce')),
    ]
    runner = build_training(
        'pretraining', folder, iterations=ITERATIONS, interval=interval, default_hooks=dict(runtime_info=dict(type=hook)),
        custom_hooks=[own], launcher='pytorch', cfg=Config(dict(model_wrapper_cfg=WRAPPER)),
    )  # fmt: skip
    with replaced[0], replaced[1]:
        runner.train()
    saved = runner.message_hub.state_dict()['log_scalars']['train/loss'].data[0].tolist()
    logged = losses(folder) if get_rank() == 0 else None
    return dict(own=own.losses, logged=logged, saved=saved, collectives=len(calls))


def main(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    found = {
        f'{hook} {interval}': train(folder / f'{hook}{interval}', hook, interval)
        for hook in ('RuntimeInfoHook', 'DeferredRuntimeInfoHook')
        for interval in (1, 3)
    }
    (folder / f'{get_rank()}.json').write_text(json.dumps(found))


if __name__ == '__main__':
    run_command(lambda: main(Path(sys.argv[1])))
