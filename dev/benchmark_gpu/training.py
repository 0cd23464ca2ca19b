"""Training: the official-style loop, and ours as configured, in bfloat16, compiled and with recomputed activations."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from benchmark_data import random_vae
from benchmark_lib import gpu_tf32, peak_memory
from benchmark_models import build_model, flops_of, model_config

from .baseline import official_flops, official_network, official_step
from .operations import training_operations
from .report import Report
from .scale import TINY_ARCH, Scale
from .timing import clean, count_kernels, launch_ms, time_steps

#: Rows that are compared with the official-style loop.
PEERS = 'DiT training'


def latent_batch(num: int, latent_size: int, classes: int) -> dict[str, Any]:
    """A batch as a loader over a latent cache gives it: moments in (pinned) host memory, and labelled samples."""
    from mmpretrain.structures import DataSample

    from usp_mm.datasets import EpochIndex

    moments = torch.randn(num, 8, latent_size, latent_size)
    samples = []
    for i in range(num):
        sample = DataSample().set_gt_label(i % classes)
        sample.set_field(EpochIndex(i, 3, 7), 'sample_idx', field_type='metainfo')
        samples.append(sample)
    return dict(inputs=moments.pin_memory() if torch.cuda.is_available() else moments, data_samples=samples)


def train_step(model: Any, optim: Any, batch: dict[str, Any], read: bool = True) -> Callable[[], None]:
    """What an iteration of MMEngine's loop does: the step, the averaged weights, and, if `read`, the losses for the log."""

    def step() -> None:
        losses = model.train_step(dict(batch), optim)
        if hasattr(model, 'update_ema'):
            model.update_ema()
        if read:
            for value in losses.values():
                value.item()

    return step


def build_optimizer(model: Any, cfg: Any) -> Any:
    from mmengine.optim import build_optim_wrapper

    return build_optim_wrapper(model, cfg.optim_wrapper)


def official(report: Report, scale: Scale) -> None:
    """The official-style loop on latents, and with the VAE in it."""
    flops = 3 * official_flops(scale)
    for size, with_vae in ((64, False), (32, False), (32, True)):
        what = 'DiT-XL/2 in plain torch, fp32 with TF32' + (', VAE in the loop' if with_vae else '')
        batch = scale.batch(size)
        with report.attempt(what, batch=batch), gpu_tf32():
            clean()
            vae = random_vae(scale.vae).to(scale.device).eval().requires_grad_(False) if with_vae else None
            step = official_step(official_network(scale), batch, scale, vae)
            ms, first = time_steps(step, scale)
            report.speed(what, batch, ms, flops, peers=PEERS, **{'peak GiB': peak_memory(), 'first s': first})
            report.add(kernels=count_kernels(step))
            del step


def train(report: Report, scale: Scale) -> None:
    """Eager: bfloat16 at three batch sizes, float32 with TF32, and recomputed activations."""
    _ours(report, scale, 'DiT', 'xl', {'bf16': (64, 32, 128), 'fp32': (64,), 'bf16 checkpointed': (128,)})


def compiled(report: Report, scale: Scale) -> None:
    """The same in bfloat16 under torch.compile, which compiles for each batch size."""
    _ours(report, scale, 'DiT', 'xl', {'bf16 compiled': (64, 32, 128)})


def pretrain(report: Report, scale: Scale) -> None:
    """MAE pretraining."""
    for arch in ('base', 'xl'):
        _ours(report, scale, 'MAE', arch, {'bf16': (64,), 'bf16 compiled': (64,)})


def _ours(report: Report, scale: Scale, name: str, arch: str, plan: dict[str, tuple[int, ...]]) -> None:
    """A row for each mode of the plan at each of its batch sizes."""
    for mode, sizes in plan.items():
        what = f'{name}-{arch}, {mode}'
        with report.attempt(what), gpu_tf32():
            clean()
            cfg = model_config(name, scale.arch(arch), mode, *_size(name, scale))
            flops = flops_of(cfg)['train']
            model = build_model(cfg, scale.device)
            optim = build_optimizer(model, cfg)
            for size in map(scale.batch, sizes):
                with report.attempt(what, batch=size):
                    clean()
                    _measure(report, scale, what, model, optim, size, flops)
                model.zero_grad(set_to_none=True)
            del model, optim


def _size(name: str, scale: Scale) -> tuple[int, int | None]:
    """(img_size, classes) of a config."""
    if name == 'MAE':
        return (64 if scale.toy else 224), None
    return scale.img_size, scale.classes


def _measure(report: Report, scale: Scale, what: str, model: Any, optim: Any, batch: int, flops: int) -> None:
    denoiser = getattr(model, 'denoiser', None)
    data = latent_batch(batch, (denoiser or model.backbone).geometry.latent_size, scale.classes)
    ms, first = time_steps(train_step(model, optim, data), scale)
    peers = None if denoiser is None else PEERS
    report.speed(what, batch, ms, flops, peers=peers, **{'peak GiB': peak_memory(), 'first s': first})
    unread = train_step(model, optim, data, read=False)
    report.add(**{'host ms': launch_ms(unread)})
    report.add(kernels=count_kernels(unread))


def runner(report: Report, scale: Scale) -> None:
    """MMEngine's own loop over a latent cache, with the hooks of the config."""
    from benchmarks.generate import training

    steps, batch = (3, 4) if scale.toy else (30, 64)
    for mode in ('bf16', 'bf16 compiled'):
        what = f'DiT-xl in MMEngine’s loop, {mode}'
        with report.attempt(what, batch=batch):
            clean()
            cfg = model_config('DiT', scale.arch('xl'), mode, scale.img_size, scale.classes)
            flops = flops_of(cfg)['train']
            found = training(cfg, argparse.Namespace(batch_size=batch, steps=steps), mode)
            report.speed(what, batch, found['ms/step'], flops, peers=PEERS, **{'peak GiB': peak_memory()})
            report.fact(f'{what}: outside the network, %', round(found['outside %'], 1))


def operations(report: Report, scale: Scale) -> None:
    """What a training step launches in eager mode, by part; the width is small, as the numbers don't depend on it."""
    for mode in ('fp32', 'bf16'):
        what = f'DiT, {2 if scale.toy else 28} blocks, eager {mode}'
        with report.attempt(what):
            arch = {**TINY_ARCH, 'depth': 2 if scale.toy else 28}
            counts = dit_operations(arch, mode)
            report.row(f'{what}: all', kernels=sum(counts.values()))
            for part, count in counts.items():
                report.row(f'{what}: {part}', kernels=count)


def dit_operations(arch: dict[str, int], mode: str) -> dict[str, int]:
    """Operations of a training step of DiT on two latents of 8 x 8, see `training_operations`."""
    model = build_model(model_config('DiT', arch, mode, 64, 10), 'cpu').train()
    return training_operations(model, latent_batch(2, 8, 10), 'bf16' in mode)
