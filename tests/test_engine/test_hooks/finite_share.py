"""One process's share of a training that breaks on the second one alone: `torchrun finite_share.py FOLDER`."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from usp_mm.engine import FiniteHook
from usp_mm.runtime.command import run_command


class Draws(Hook):
    """A picture every two iterations, after the check."""

    interval = 2

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Nothing is drawn."""


def ends(what: str, interval: int, draws: bool = False) -> list:
    """[iterations that this process began, how it ended] of four iterations whose second breaks on process 1."""
    model, logger = torch.nn.Linear(2, 1), LoggerHook(interval=interval)
    runner = SimpleNamespace(
        model=model, iter=0, hooks=[logger], max_iters=4, message_hub=MessageHub.get_instance('share'), logger=None,
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)),
    )  # fmt: skip
    hook = FiniteHook()
    runner.hooks += [hook, Draws()] if draws else [hook]
    hook.before_train(runner)
    try:
        for i in range(4):
            hook.before_train_iter(runner, i)
            broken = i == 1 and get_rank() == 1
            if broken and what == 'weights':
                model.weight.data[0, 0] = float('nan')
            loss = torch.tensor(float('inf') if broken and what == 'loss' else 1.0)
            hook.after_train_iter(runner, i, outputs=dict(loss=loss))
            runner.iter += 1
        hook.after_train_epoch(runner)
    except ValueError as error:
        return [runner.iter + 1, str(error).split(':')[0]]
    return [runner.iter, 'not at all']


def main(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    found = [ends('loss', 3), ends('loss', 100), ends('weights', 3), ends('none', 1), ends('weights', 100, draws=True)]
    (folder / f'{get_rank()}.json').write_text(json.dumps(found))


if __name__ == '__main__':
    run_command(lambda: main(Path(sys.argv[1])))
