"""A pretraining step of this package, float32 and bfloat16, against a plain eager float32 loop of the same model.

Each row is measured in a fresh process. "ours" is MMEngine's training loop over a latent cache with every default hook;
the time outside is what its iterations take beyond forward, backward and the optimizer's step. The plain loop draws
random latents and masks and does those three things only.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmark_lib import Clock, in_fresh_process, peak_memory, step_ms, write_random_cache

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
        rows.append(in_fresh_process('pretrain', options))
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
    return {'ms/step': plain_ms(args.arch, args.batch_size, args.steps), 'outside %': 0.0}


def plain_ms(arch: str, batch_size: int, steps: int, img_size: int = 224) -> float:
    """Milliseconds of a step of the plain loop."""
    import torch
    from mmpretrain.registry import MODELS

    import usp_mm  # noqa: F401
    from usp_mm.functional.masking import mask_from_noise

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    backbone = dict(type='USPViT', arch=arch, img_size=img_size)
    model = MODELS.build(dict(type='USP', backbone=backbone, data_preprocessor=dict(load_vae=False))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95))
    latents = torch.randn(batch_size, 4, img_size // 8, img_size // 8, device=device)

    def step() -> None:
        mask = mask_from_noise(torch.rand(batch_size, (img_size // 16) ** 2, device=device), 0.75)
        loss = model.head.loss(model.predict_patches(latents, mask), latents, mask.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step_ms(step, steps)


def runner_loop(args: argparse.Namespace) -> dict[str, float]:
    """MMEngine's loop over a cache, with the time of each iteration and of the network in it."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    import usp_mm  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        write_random_cache(Path(folder) / 'cache', args.batch_size * args.steps, img_size=224)
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
        clock = Clock(args.steps)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(clock.hook(), priority='LOWEST')
        runner.model.predict_patches = clock.timed('forward', runner.model.predict_patches)
        runner.model.head.loss = clock.timed('loss', runner.model.head.loss)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.optim_wrapper.update_params = clock.timed('update', runner.optim_wrapper.update_params)
        runner.train()
    return {'ms/step': clock.ms, 'outside %': 100 * (1 - clock.share('forward', 'loss', 'update'))}
