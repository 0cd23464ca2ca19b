"""Operations and processor time of a training step with TREAD's routed tokens against the same step without, side by side.

The configs are those of SiT-B/2 and SiT-XL/2 at 256 pixels, on latents of noise, in float32 without compilation. A step is
loss, backward pass and AdamW. Routed and plain steps take turns in one process, so that other load falls on both; the time is
the processor's, of all threads of the process, which another process on the same cores moves less than the clock's.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = 'a training step with routed tokens against one without'
ROOT = Path(__file__).parents[2]
NAME = 'configs/sit/sit-{}-p2_usp-pre_tread_8xb32-400k_in1k-256px-latents.py'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--archs', nargs='+', default=['base', 'xl'], choices=['base', 'xl'], help='default: both')
    parser.add_argument('--batch-size', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--steps', type=int, default=3, help='counted steps of each, after one more (default: %(default)s)')


def run(args: argparse.Namespace) -> dict[str, Any]:
    rows = [row for arch in args.archs for row in measure(arch, args)]
    return dict(rows=rows, data=f'latents of noise, 4 x 32 x 32, batch {args.batch_size}, float32')


def configs_of(arch: str) -> tuple[Any, Any]:
    """The config without a route and the one with it, without VAE, average and pretrained weights."""
    from mmengine.config import Config

    import usp_mm  # noqa: F401

    plain, routed = (Config.fromfile(ROOT / name.format(arch)) for name in (NAME.replace('_tread', ''), NAME))
    for cfg in (plain, routed):
        cfg.model.data_preprocessor.load_vae, cfg.model.ema, cfg.model.sample_model = False, None, 'model'
        cfg.model.denoiser.pop('init_cfg')
    return plain, routed


def measure(arch: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one size: plain, then routed with the ratios."""
    from benchmark_models import flops_of

    configs = configs_of(arch)
    operations, seconds = [flops_of(cfg)['train'] for cfg in configs], processor_seconds(configs[1], args)
    return [
        {
            'step': f'SiT-{arch}/2, {what}',
            'GFLOP/image': operations[i] / 1e9,
            'operations ×': operations[i] / operations[0],
            'CPU s/step': seconds[i],
            'time ×': seconds[i] / seconds[0],
        }
        for i, what in enumerate(('all tokens', 'routed'))
    ]


def processor_seconds(cfg: Any, args: argparse.Namespace) -> list[float]:
    """Median time of a step without the config's route and with it, of one model."""
    import torch
    from benchmark_models import build_model

    from usp_mm.models.random_keys import SampleKeys

    model = build_model(cfg, 'cpu').train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, foreach=True)
    side = model.denoiser.geometry.latent_size
    route, (x, label) = model.denoiser.route, (torch.randn(args.batch_size, 4, side, side), torch.arange(args.batch_size))
    assert route is not None

    def step(number: int) -> None:
        keys = SampleKeys(torch.arange(args.batch_size), torch.full((args.batch_size,), number), seed=0)
        loss = model.loss(x, None, keys=keys, labels=label)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    times: list[list[float]] = [[], []]
    for number in range(args.steps + 1):
        for i, model.denoiser.route in enumerate((None, route)):
            times[i].append(_timed(lambda number=number: step(number)))
    return [statistics.median(found[1:]) for found in times]


def _timed(function: Callable[[], None]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start
