"""Guided sampling of DiT-XL/2 without the VAE: two rows of the network for each image and step."""

from typing import Any

import torch
from benchmark_lib import gpu_tf32, now, peak_memory
from benchmark_models import build_model, flops_of, model_config

from .baseline import official_flops, official_network
from .report import Report
from .scale import Scale
from .timing import clean, time_steps

_PEERS = 'DiT sampling'


def run(report: Report, scale: Scale) -> None:
    """Calls of the official-style network, then our whole sampler."""
    with report.attempt('DiT-XL/2 in plain torch, fp32 with TF32, calls alone'):
        _official(report, scale)
    for mode, sizes in {'fp32': (64,), 'bf16': (64, 4), 'bf16 compiled': (64, 4)}.items():
        what = f'DiT-xl, {scale.sample_steps} steps, guided, {mode}'
        with report.attempt(what):
            clean()
            cfg = model_config('DiT', scale.arch('xl'), mode, scale.img_size, scale.classes)
            cfg.model.guidance = dict(scale=1.5, channels=3)
            flops = 2 * scale.sample_steps * flops_of(cfg)['forward']
            model = build_model(cfg, scale.device).eval()
            for batch in map(scale.batch, sizes):
                with report.attempt(what, batch=batch):
                    clean()
                    first = _sample(model, batch, 2)
                    ms = 1000 * _sample(model, batch, scale.sample_steps)
                    report.speed(what, batch, ms, flops, peers=_PEERS, **{'peak GiB': peak_memory(), 'first s': first})
            del model


def _official(report: Report, scale: Scale) -> None:
    batch = scale.batch(64)
    network = official_network(scale).eval()
    x = torch.randn(2 * batch, 4, scale.latent_size, scale.latent_size, device=scale.device)
    label, t = (torch.full((2 * batch,), value, device=scale.device) for value in (1, 500))
    with torch.no_grad(), gpu_tf32():
        ms, _ = time_steps(lambda: network(x, t, label), scale, 2)
    flops = 2 * scale.sample_steps * official_flops(scale)
    what = f'DiT-XL/2 in plain torch, fp32 with TF32, the calls of {scale.sample_steps} steps'
    report.speed(what, batch, ms * scale.sample_steps, flops, peers=_PEERS, **{'peak GiB': peak_memory()})


def _sample(model: Any, batch: int, steps: int) -> float:
    """Seconds."""
    model.sampler.num_steps = steps
    start = now()
    model.sample_latents(range(batch), [i % model.denoiser.num_classes for i in range(batch)])
    return now() - start
