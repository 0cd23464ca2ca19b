"""Trainings of tiny networks on random moments of a VAE, with the hooks that every config has, and what a step costs."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import usp_mm.engine  # noqa: F401  (registers its hooks)

ROOT = Path(__file__).parents[2]
ARCH = dict(embed_dims=32, depth=2, num_heads=2)
PRETRAINING = dict(ARCH, decoder_dims=16, decoder_depth=1, decoder_heads=2)
BACKBONE = dict(type='USPViT', img_size=64)
HEAD = dict(type='VisionTransformerClsHead', num_classes=4)
MIX = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
VAE = dict(load_vae=False)
SIT = dict(type='SiT', arch=ARCH, img_size=64, num_classes=4)
MODEL_CONFIGS = {
    'pretraining': dict(type='USP', backbone=dict(BACKBONE, arch=PRETRAINING), data_preprocessor=VAE),
    'probe': dict(
        type='USPClassifier', backbone=dict(BACKBONE, arch=ARCH, frozen_stages=2), neck=dict(type='ClsBatchNormNeck'),
        head=HEAD, data_preprocessor=VAE,
    ),
    'fine-tuning': dict(
        type='USPClassifier', backbone=dict(BACKBONE, arch=ARCH), data_preprocessor=dict(VAE, batch_augments=MIX),
        head=dict(HEAD, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    ),
    'generator': dict(
        type='LatentDiffusionGenerator', denoiser=SIT, objective=dict(type='FlowObjective'), data_preprocessor=VAE,
        sampler=dict(type='SDESampler', num_steps=2),
    ),
}  # fmt: skip
_RUNS = itertools.count()


class Moments(torch.utils.data.Dataset):
    """So many samples of random moments of `sd-f8d4`, of four classes."""

    def __init__(self, num: int) -> None:
        self.moments = torch.randn(num, 8, 8, 8, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = DataSample(metainfo=dict(sample_idx=index)).set_gt_label(int(index) % 4)
        return dict(inputs=self.moments[int(index)], data_samples=sample)


def build_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = MODELS.build(MODEL_CONFIGS[kind])
    model.init_weights()
    return model


def build_training(kind: str, work_dir: Path, *, iterations: int = 8, interval: int = 4, **kwargs: Any) -> Runner:
    """A runner of one of `MODEL_CONFIGS` that logs every `interval` iterations and clips gradients."""
    hooks = Config.fromfile(ROOT / 'configs' / '_base_' / 'default_runtime.py').default_hooks.to_dict()
    hooks['logger']['interval'] = interval
    hooks['checkpoint'] |= dict(by_epoch=False, interval=iterations)
    if kind == 'generator':
        hooks['ema'] = dict(type='GeneratorEMAHook')
    hooks |= kwargs.pop('default_hooks', {})
    settings: dict[str, Any] = dict(
        train_dataloader=dict(
            dataset=Moments(40), batch_size=4, num_workers=0, sampler=dict(type='EpochInfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'), pin_memory=True,
        ),
        train_cfg=dict(type='PositionedIterTrainLoop', max_iters=iterations), log_processor=dict(by_epoch=False),
        optim_wrapper=dict(
            type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=1.0),
        ),
        default_scope='mmpretrain', default_hooks=hooks, randomness=dict(seed=3), experiment_name=f'small{next(_RUNS)}',
    )  # fmt: skip
    with patch('mmengine.runner.runner.collect_env', dict):
        return Runner(build_model(kind), str(work_dir), **{**settings, **kwargs})


def profile_iterations(runner: Runner, wanted: set[int]) -> dict[int, list[str]]:
    """Train, and name the operators of the iterations with these numbers, from 0, but for those within the optimizer."""
    found: dict[int, list[str]] = {}
    inner: Callable[..., None] = runner.train_loop.run_iter

    def run_iter(*args: Any) -> None:
        if (number := runner.iter) not in wanted:
            return inner(*args)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            inner(*args)
        found[number] = [event.name for event in profiler.events() if not _in_optimizer(event)]

    runner.train_loop.run_iter = run_iter
    runner.train()
    return found


def _in_optimizer(event: Any) -> bool:
    """On a CPU, AdamW and its like read their count of steps, which is no tensor of a GPU there either."""
    return event is not None and (event.name.startswith('Optimizer.step') or _in_optimizer(event.cpu_parent))


class Copies(TorchDispatchMode):
    """The shapes of tensors that are copied from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        source = args[1] if func is torch.ops.aten.copy_.default else args[0] if args else None
        if isinstance(out, torch.Tensor) and isinstance(source, torch.Tensor) and source.device != out.device:
            self.shapes.append(tuple(source.shape))
        return out
