"""A pretraining step of this package, float32 and bfloat16, against a plain eager float32 loop of the same model.

Each row is measured in a fresh process. "ours" is MMEngine's training loop over a latent cache with every default hook;
the time outside is what its iterations take beyond forward, backward and the optimizer's step. The plain loop draws
random latents and masks and does those three things only.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HELP = 'step time, time outside the network, and memory of pretraining'
MODES = ('plain fp32', 'ours fp32', 'ours bf16')
CONFIG = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--arch', default='base', help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, help='default: 256 on a GPU, 4 on a CPU')
    parser.add_argument('--steps', type=int, default=12, help='of which the first third is not counted (default: %(default)s)')
    parser.add_argument('--mode', choices=MODES, help='measure this one in this process, and print it as JSON')


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    args.batch_size = args.batch_size or (256 if torch.cuda.is_available() else 4)
    if args.mode:
        return dict(rows=[measure(args)])
    rows = []
    for mode in MODES:
        options = ['--arch', args.arch, '--batch-size', args.batch_size, '--steps', args.steps, '--mode', mode]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / 'row.json'
            command = [sys.executable, sys.argv[0], 'pretrain', '--json', out, *options]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
            rows += json.loads(out.read_text())['rows']
    for row in rows:
        row['speed ×'] = rows[0]['ms/step'] / row['ms/step']
    return dict(rows=rows, data=f'{args.arch}, latents 4 x 28 x 28, batch {args.batch_size}')


def measure(args: argparse.Namespace) -> dict[str, Any]:
    measured = plain_loop(args) if args.mode == 'plain fp32' else runner_loop(args)
    return dict(
        mode=args.mode, **measured, **{'images/s': 1000 * args.batch_size / measured['ms/step'], 'peak GiB': peak_memory()}
    )


def plain_loop(args: argparse.Namespace) -> dict[str, float]:
    """Forward, backward and AdamW of the model and nothing else."""
    import torch
    from mmpretrain.registry import MODELS

    import usp_mm  # noqa: F401
    from usp_mm.functional.masking import mask_from_noise

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    backbone = dict(type='USPViT', arch=args.arch)
    model = MODELS.build(dict(type='USP', backbone=backbone, data_preprocessor=dict(load_vae=False))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95))
    latents = torch.randn(args.batch_size, 4, 28, 28, device=device)
    times = []
    for _ in range(args.steps):
        start = now()
        mask = mask_from_noise(torch.rand(args.batch_size, 196, device=device), 0.75)
        loss = model.head.loss(model.predict_patches(latents, mask), latents, mask.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(now() - start)
    return {'ms/step': 1000 * statistics.median(times[args.steps // 3 :]), 'outside %': 0.0}


def runner_loop(args: argparse.Namespace) -> dict[str, float]:
    """MMEngine's loop over a cache, with the time of each iteration and of the network in it."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    import usp_mm  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        write_random_cache(Path(folder) / 'cache', args.batch_size * args.steps)
        cfg = Config.fromfile(CONFIG)
        cfg.work_dir = f'{folder}/run'
        cfg.model.backbone.arch = args.arch
        cfg.model.data_preprocessor.load_vae = False
        cfg.train_dataloader.batch_size = args.batch_size
        cfg.train_dataloader.dataset.data_root = f'{folder}/cache'
        cfg.train_cfg.max_epochs, cfg.log_level = 1, 'ERROR'
        cfg.param_scheduler = cfg.param_scheduler[:1]  # the warm-up: the cosine would begin after the end
        cfg.default_hooks.checkpoint.interval = -1
        cfg.default_hooks.checkpoint.save_last = False
        if args.mode == 'ours fp32':
            cfg.optim_wrapper.type = 'OptimWrapper'
        clock = Clock()
        runner = Runner.from_cfg(cfg)
        runner.register_hook(clock.hook(), priority='LOWEST')
        runner.model.predict_patches = clock.timed(runner.model.predict_patches)
        runner.model.head.loss = clock.timed(runner.model.head.loss)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.optim_wrapper.update_params = clock.timed(runner.optim_wrapper.update_params)
        runner.train()
    counted = slice(args.steps // 3, None)
    whole, network = sum(clock.iterations[counted]), sum(clock.networks[counted])
    return {'ms/step': 1000 * statistics.median(clock.iterations[counted]), 'outside %': 100 * (1 - network / whole)}


class Clock:
    """Seconds of each iteration, from the end of the one before, and of the timed calls in it."""

    def __init__(self) -> None:
        self.iterations: list[float] = []
        self.networks: list[float] = []
        self.network, self.last = 0.0, now()

    def timed(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = now()
            result = function(*args, **kwargs)
            self.network += now() - start
            return result

        return call

    def hook(self) -> Any:
        from mmengine.hooks import Hook

        clock = self

        class ClockHook(Hook):
            def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
                end = now()
                clock.iterations.append(end - clock.last)
                clock.networks.append(clock.network)
                clock.network, clock.last = 0.0, end

        return ClockHook()


def write_random_cache(folder: Path, num: int) -> None:
    """A cache of `num` noise images through a codec that pools instead of encoding: only the shapes matter."""
    import torch

    from usp_mm.datasets.latent_cache.plan import CacheSpec
    from usp_mm.datasets.latent_cache.writer import write_cache
    from usp_mm.vaes import LatentCodec

    images = folder.parent / 'images'
    images.mkdir()
    write_images(images, num)

    class Pool(torch.nn.Module):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.avg_pool2d(x, 8)
            return torch.cat([x, x, x[:, :2] - 10], dim=1)

    codec = LatentCodec(Pool(), name='sd-f8d4', channels=4, stride=8, patch_size=2, scale=0.18215)
    write_cache(str(images), folder, codec, CacheSpec(224), num_workers=0)


def write_images(folder: Path, num: int) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for i in range(num):
        Image.fromarray(noise.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(folder / f'{i:05d}.png')


def now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> float:
    """GiB: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
