"""Runs of a linear model under MMEngine's Runner, with the hooks that every config has: a training in a tenth of a second."""

import itertools
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

import usp_mm.engine  # noqa: F401  (registers its hooks)

_RUNS = itertools.count()
HOOKS = ('ResumeHook', 'AccumulationHook', 'CheckpointDataHook', 'CheckpointMatchHook', 'StatelessSeedHook')


class Model(BaseModel):
    """Three weights, no bias, and a loss that needs every sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, inputs: torch.Tensor, mode: str = 'loss') -> Any:
        return dict(loss=(self.linear(inputs) - inputs.sum(1, keepdim=True)).square().mean())


class Data(torch.utils.data.Dataset):
    """So many samples, each its own numbers; with `metainfo` if given."""

    def __init__(self, num: int, metainfo: dict | None = None) -> None:
        self.samples = torch.randn(num, 3, generator=torch.Generator().manual_seed(1))
        if metainfo is not None:
            self.metainfo = metainfo

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.samples[int(index)], index=int(index))


class Recorder(Hook):
    """The hyper-parameters before each iteration, and the samples of each: (epoch, iteration) -> …"""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.groups: dict[int, list[dict]] = {}
        self.samples: list[list[int]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        wrapper = runner.optim_wrapper
        self.groups[runner.iter] = [{k: v for k, v in g.items() if k != 'params'} for g in wrapper.optimizer.param_groups]
        self.samples.append(data_batch.pop('index').tolist())

    def rates(self, name: str = 'lr') -> dict[int, float]:
        return {iteration: groups[-1][name] for iteration, groups in self.groups.items()}


def run(
    work_dir: Path, *, train_cfg: dict, num: int = 40, batch: int = 4, optimizer: dict | None = None,
    schedulers: Any = None, metainfo: dict | None = None, checkpoint: dict | None = None, hooks: tuple = HOOKS,
    wrapper: dict | None = None, sampler: str | None = None, sampler_seed: int | None = None, seed: int | None = 0,
    train: bool = True, cfg: Config | None = None, **kwargs: Any,
) -> tuple[Runner, Recorder]:  # fmt: skip
    """A finished training and what it did; by default in epochs, with AdamW."""
    recorder = Recorder()
    epochs = 'max_epochs' in train_cfg
    sampler = sampler or ('EpochSampler' if epochs else 'EpochInfiniteSampler')
    own = {} if sampler_seed is None else dict(seed=sampler_seed)
    loop = {'type': 'EpochBasedTrainLoop' if epochs else 'PositionedIterTrainLoop', **train_cfg}
    default_hooks = dict(
        logger=dict(type='LoggerHook', interval=1),
        checkpoint={'type': 'AtomicCheckpointHook', 'by_epoch': epochs, 'interval': 1, **(checkpoint or {})},
    )
    with patch('mmengine.runner.runner.collect_env', dict):
        runner = Runner(
            Model(), str(work_dir), experiment_name=f'toy{next(_RUNS)}', default_scope='mmengine', randomness=dict(seed=seed),
            train_dataloader=dict(
                dataset=Data(num, metainfo), batch_size=batch, num_workers=0, drop_last=True,
                sampler={**own, 'type': sampler, 'shuffle': True}, collate_fn=dict(type='default_collate'),
            ),
            train_cfg=loop, param_scheduler=schedulers, default_hooks=default_hooks,
            optim_wrapper=dict(optimizer=optimizer or dict(type='AdamW', lr=0.1), **(wrapper or {})),
            log_processor=dict(by_epoch=epochs), cfg=cfg or Config(dict(param_scheduler=schedulers)),
            custom_hooks=[*(dict(type=name) for name in hooks), recorder], **kwargs,
        )  # fmt: skip
    if train:
        runner.train()
    return runner, recorder


def log_of(work_dir: Path) -> str:
    """The text of the latest log of a work folder."""
    return max(work_dir.glob('*/*.log'), key=lambda path: path.stat().st_mtime_ns).read_text()


def losses(work_dir: Path) -> list[float]:
    lines = [line for path in sorted(work_dir.glob('*/vis_data/scalars.json')) for line in path.read_text().splitlines()]
    return [record['loss'] for record in map(json.loads, lines) if 'loss' in record]


def saved(path: Path) -> dict:
    return torch.load(path, map_location='cpu', weights_only=True)
