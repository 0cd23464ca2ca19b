"""The GPU against the CPU in float32, bfloat16 and compiled networks against eager ones, and a resumed run; at toy sizes."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmark_lib import gpu_tf32, write_random_cache
from benchmark_models import build_model, model_config
from torch import Tensor

from usp_mm.functional import random

from .report import OK, Report
from .scale import CHECK_ARCH, CHECK_CLASSES, CHECK_SIZE, Scale
from .training import build_optimizer, latent_batch

_LATENT = CHECK_SIZE // 8


def run(report: Report, scale: Scale) -> None:
    """One row, and a line for each check."""
    with gpu_tf32(False):
        _random_numbers(report, scale)
        for name in ('DiT', 'SiT', 'MAE'):
            _network(report, scale, name)
        _adaptive_sampler(report, scale)
        _probe(report, scale)
    report.row('GPU against CPU, compiled against eager', _verdict(report))


def _verdict(report: Report) -> str:
    return f'{len(report.wrong)} checks failed' if report.wrong else OK


def _random_numbers(report: Report, scale: Scale) -> None:
    samples = torch.arange(64)
    for name, draw, shape in (('uniform', random.uniform, 777), ('normal', random.normal, (4, 32, 32))):
        cpu, gpu = (draw(samples.to(d), samples.to(d), shape, seed=5, stream='noise').cpu() for d in ('cpu', scale.device))
        report.check(f'random {name} numbers, largest difference', float((cpu - gpu).abs().max()), 1e-5)


def _build(name: str, mode: str, device: str, state: dict[str, Tensor] | None = None) -> tuple[Any, Any]:
    """Model and config; with `state` in place of its first weights."""
    cfg = model_config(name, CHECK_ARCH, mode, CHECK_SIZE, None if name == 'MAE' else CHECK_CLASSES)
    model = build_model(cfg, device)
    if state is not None:
        model.load_state_dict(state)
    return model, cfg


def _first_state(name: str) -> dict[str, Tensor]:
    """Weights to start from: none of them 0 as in adaLN-Zero, whose output is."""
    torch.manual_seed(0)
    model, _ = _build(name, 'fp32', 'cpu')
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.02)
    if name != 'MAE':
        model.denoiser_ema.module.load_state_dict(model.denoiser.state_dict())
    return {key: value.clone() for key, value in model.state_dict().items()}


def _network(report: Report, scale: Scale, name: str) -> None:
    """Three steps on the CPU, then the same on the device, in each mode, and, of a generator, samples."""
    state, batch = _first_state(name), latent_batch(6, _LATENT, CHECK_CLASSES)
    wanted, weights = _three_steps(name, 'fp32', 'cpu', state, batch)
    for mode, limit in (('fp32', 1e-3), ('bf16', 3e-2), ('fp32 compiled', 1e-3)):
        losses, found = _three_steps(name, mode, scale.device, state, batch)
        report.close(f'{name}, {mode}: losses of three steps', losses, wanted, limit)
        if mode == 'fp32':
            report.close(f'{name}, {mode}: weights after them', found, weights, 2e-2)
    if name != 'MAE':
        _samples(report, scale, name, state)


def _three_steps(name: str, mode: str, device: str, state: dict[str, Tensor], batch: dict) -> tuple[Tensor, Tensor]:
    """Losses, and the trained weights after them."""
    model, cfg = _build(name, mode, device, state)
    optim = build_optimizer(model, cfg)
    losses = torch.tensor([model.train_step(dict(batch), optim)['loss'].item() for _ in range(3)])
    return losses, torch.cat([p.detach().flatten().cpu() for p in model.parameters() if p.requires_grad])


def _samples(report: Report, scale: Scale, name: str, state: dict[str, Tensor]) -> None:
    def draw(mode: str, device: str, *batches: list[int]) -> Tensor:
        model, _ = _build(name, mode, device, state)
        model.eval().sampler.num_steps = 10
        return torch.cat([model.sample_latents(numbers, numbers, seed=3) for numbers in batches])

    wanted = draw('fp32', 'cpu', [0, 1, 2, 3])
    for mode, limit in (('fp32', 1e-3), ('bf16', 0.1), ('fp32 compiled', 1e-3)):
        report.close(f'{name}, {mode}: ten steps of sampling', draw(mode, scale.device, [0, 1, 2, 3]), wanted, limit)
    report.close(f'{name}, fp32: the same one by one', draw('fp32', scale.device, [0], [1], [2], [3]), wanted, 1e-3)


def _adaptive_sampler(report: Report, scale: Scale) -> None:
    state, drawn = _first_state('SiT'), []
    for device in ('cpu', scale.device):
        cfg = model_config('SiT', CHECK_ARCH, 'fp32', CHECK_SIZE, CHECK_CLASSES)
        cfg.model.sampler = dict(type='ODESampler', method='dopri5')
        model = build_model(cfg, device).eval()
        model.load_state_dict(state)
        drawn.append(model.sample_latents([1, 2], [1, 2]))
    report.close('SiT, fp32: samples of dopri5', drawn[1], drawn[0], 1e-3)


def _probe(report: Report, scale: Scale) -> None:
    """LARS, and BatchNorm in the head."""
    found = []
    for device in ('cpu', scale.device):
        torch.manual_seed(0)
        cfg = model_config('probe', CHECK_ARCH, 'fp32', CHECK_SIZE, CHECK_CLASSES)
        cfg.model.backbone.init_cfg = None
        cfg.model.backbone.frozen_stages = CHECK_ARCH['depth']
        model = build_model(cfg, 'cpu').to(device).train()
        optim = build_optimizer(model, cfg)
        batch = latent_batch(8, _LATENT, CHECK_CLASSES)
        found.append(torch.tensor([model.train_step(dict(batch), optim)['loss'].item() for _ in range(3)]))
    report.close('linear probe, fp32: losses of three steps', found[1], found[0], 1e-3)


def resume(report: Report, scale: Scale) -> None:
    """Six steps of a Runner straight on, against three, and three more from the checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_cache(folder / 'cache', 32, CHECK_SIZE)
        straight = _train(folder, 'straight', 6)
        _train(folder, 'stopped', 3)
        resumed = _train(folder, 'stopped', 6, folder / 'stopped' / 'iter_3.pth')
    report.check('resumed against straight on: largest difference of a weight', float((straight - resumed).abs().max()), 1e-4)
    report.row('a run that is stopped and resumed', _verdict(report))


def _train(folder: Path, name: str, steps: int, checkpoint: Path | None = None) -> Tensor:
    """All weights after a training, float32[…]."""
    from mmengine.runner import Runner

    cfg = model_config('SiT', CHECK_ARCH, 'bf16', CHECK_SIZE, CHECK_CLASSES)
    cfg.work_dir, cfg.experiment_name, cfg.log_level = str(folder / name), f'{name}-{steps}', 'ERROR'
    cfg.train_dataloader.update(batch_size=8, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(folder / 'cache')
    cfg.train_cfg.update(max_iters=steps)
    for part in ('val', 'test'):
        cfg[f'{part}_cfg'] = cfg[f'{part}_dataloader'] = cfg[f'{part}_evaluator'] = None
    cfg.default_hooks.pop('visualization')  # pictures need a VAE
    cfg.default_hooks.checkpoint.interval = 3
    cfg.default_hooks.class_check.allow_unseen_classes = True  # the data have one
    cfg.resume, cfg.load_from = checkpoint is not None, checkpoint and str(checkpoint)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return torch.cat([p.detach().flatten().float().cpu() for p in runner.model.parameters()])
