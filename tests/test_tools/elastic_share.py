"""Trainings ended and resumed on other numbers of processes: `python elastic_share.py CONFIG FOLDER STAGES`.

A stage is [processes, batch, iterations after which it is asked to end, other options]. Each process writes the samples of each
iteration to FOLDER/seen/STAGE-RANK.json.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from helpers.forked_world import forked_world
from mmengine.config import Config
from mmengine.hooks import Hook

from usp_mm.engine.checkpointing.latest_checkpoint import newest_checkpoint
from usp_mm.engine.checkpointing.preemption import noting_signals
from usp_mm.engine.starting.build_runner import build_runner

CONFIG, FOLDER, STAGES = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])


class Seen(Hook):
    """Keeps the numbers of the samples, and asks the first process to end."""

    def __init__(self, ends: int | None) -> None:
        self.ends, self.samples = ends, []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        keys = [sample.sample_idx for sample in data_batch['data_samples']]
        self.samples.append([[int(key.epoch), int(key.sample)] for key in keys])
        if len(self.samples) == self.ends and os.environ.get('RANK', '0') == '0':
            os.kill(os.getpid(), signal.SIGTERM)


def train(number: int, rank: int) -> None:
    processes, batch, ends, options = STAGES[number]
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({'train_dataloader.batch_size': batch, **options})
    cfg.work_dir, cfg.experiment_name = str(FOLDER), f'stage{number}'
    cfg.launcher = 'none' if processes == 1 else 'pytorch'
    newest = newest_checkpoint(FOLDER).path
    cfg.resume, cfg.load_from = newest is not None, newest and str(newest)
    seen = Seen(ends)
    with patch('torch.distributed.init_process_group'), patch('mmengine.runner.runner.collect_env', dict):
        runner = build_runner(cfg)
    runner.register_hook(seen, 'LOWEST')
    try:
        with noting_signals():
            runner.train()
    finally:
        (FOLDER / 'seen' / f'{number}-{rank}.json').write_text(json.dumps(seen.samples))


def main() -> None:
    (FOLDER / 'seen').mkdir(parents=True)
    codes = [forked_world(stage[0], lambda rank, number=number: train(number, rank)) for number, stage in enumerate(STAGES)]
    (FOLDER / 'codes.json').write_text(json.dumps(codes))


if __name__ == '__main__':
    main()
