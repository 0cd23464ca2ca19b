"""Training steps and sampling of DiT and SiT against a plain eager loop of the same network, in float32 and, on a GPU, TF32.

Each row is measured in a fresh process, at 256 pixels: latents 4 x 32 x 32. Training, "ours" is MMEngine's training loop
over a latent cache with every default hook, among them the averaged weights; "outside" is what its iterations take beyond
forward pass with the loss, backward pass and the optimizer's step, and "EMA" the part of it that averages the weights. The
plain loop does those three things only, on random latents. Sampling, "ours" is the config's sampler, DDPM's for DiT and the
SDE for SiT, without the VAE; "outside" is what it takes beyond the network's calls. The plain loop calls the network and
adds what it returns. TF32 is what the official scripts allow, and what the configs have.

TFLOP/s are the network's own operations, without those that activation checkpointing repeats; MFU is their share of the
rate of a large bfloat16 matrix product on the same device, measured in the same run.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmark_lib import Clock, gpu_tf32, in_fresh_process, matmul_rate, now, peak_memory, step_ms, write_random_cache
from benchmark_models import flops_of, model_config, train_alone

HELP = 'training step and sampling of DiT and SiT: time, time outside the network, network calls, memory'
NETWORKS = ('DiT', 'SiT')
TASKS = ('train', 'sample')
MODES = ('plain fp32', 'ours fp32', 'ours bf16')
LARGE_MODES = {
    'train': ('ours bf16', 'ours bf16 checkpointed', 'ours bf16 compiled', 'ours bf16 compiled checkpointed'),
    'sample': ('ours bf16', 'ours bf16 compiled'),
}
SHAPE = (4, 32, 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--arch', default='base', help='default: %(default)s')
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=NETWORKS, help='default: all')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=TASKS, help='default: all')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES, help='of --arch (default: all)')
    parser.add_argument(
        '--large', action=argparse.BooleanOptionalAction, help='XL too, compiled and checkpointed (default: on a GPU)'
    )
    parser.add_argument('--batch-size', type=int, help='default: 64 on a GPU; on a CPU 4, in sampling 1')
    parser.add_argument('--steps', type=int, help='of training, a third of them not counted (default: 60 on a GPU, 6 on a CPU)')
    parser.add_argument('--sample-steps', type=int, default=50, help='default: %(default)s')
    parser.add_argument('--row', type=json.loads, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    gpu = torch.cuda.is_available()
    args.steps = args.steps or (60 if gpu else 6)
    if args.row:
        return dict(rows=[measure(args, **args.row)])
    rate = matmul_rate()
    rows: list[dict[str, Any]] = []
    for row in plan(args, gpu):
        batch = args.batch_size or (64 if gpu else dict(train=4, sample=1)[row['task']])
        options = ['--row', json.dumps(row), '--batch-size', batch, '--steps', args.steps, '--sample-steps', args.sample_steps]
        found = in_fresh_process('generate', options)
        peers = [other for other in rows if all(other[key] == found[key] for key in ('task', 'network'))]
        found['speed ×'] = peers[0]['ms/step'] / found['ms/step'] if peers else 1.0
        found['MFU %'] = 100 * found['TFLOP/s'] / rate
        rows.append(found)
    return {
        'rows': rows,
        'data': 'latents ' + ' x '.join(map(str, SHAPE)),
        'bf16 matmul TFLOP/s': rate,
    }


def plan(args: argparse.Namespace, gpu: bool) -> list[dict[str, str]]:
    """Arguments of `measure`, a dict for each row."""
    sizes = [(args.arch, dict.fromkeys(TASKS, args.modes))]
    if gpu if args.large is None else args.large:
        sizes.append(('xl', LARGE_MODES))
    return [
        dict(task=task, network=network, arch=arch, mode=mode)
        for arch, modes in sizes
        for network in args.networks
        for task in args.tasks
        for mode in modes[task]
    ]


def measure(args: argparse.Namespace, task: str, network: str, arch: str, mode: str) -> dict[str, Any]:
    cfg = model_config(network, arch, mode)
    loops = dict(train=(plain_training, training), sample=(plain_sampling, sampling))[task]
    with gpu_tf32():  # the plain loops; ours sets it as the config says
        measured = loops[mode != 'plain fp32'](cfg, args, mode)
    flops = flops_of(cfg)
    per_image = flops['train'] if task == 'train' else args.sample_steps * flops['forward']
    images = 1000 * args.batch_size / (measured['ms/step'] * (1 if task == 'train' else args.sample_steps))
    return {
        'task': task, 'network': f'{network}-{arch}/2', 'mode': mode, 'batch': args.batch_size, **measured,
        'images/s': images, 'TFLOP/s': images * per_image / 1e12, 'peak GiB': peak_memory(),
    }  # fmt: skip


def plain_network(cfg: Any) -> Any:
    """The denoiser alone, with weights, on the device."""
    from mmengine.device import get_device
    from mmengine.registry import MODELS

    network = MODELS.build(dict(cfg.model.denoiser, vae=cfg.model.data_preprocessor.vae.name))
    network.init_weights()
    return network.to(get_device())


def plain_training(cfg: Any, args: argparse.Namespace, mode: str) -> dict[str, float]:
    """Forward pass with the mean squared error, backward pass and AdamW, and nothing else."""
    import torch

    network = plain_network(cfg)
    device = network.pos_embed.device
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0)
    x = torch.randn(args.batch_size, *SHAPE, device=device)
    label = torch.arange(args.batch_size, device=device)

    def step() -> None:
        t = torch.rand(args.batch_size, device=device)
        out = network(x, t, label)[:, : SHAPE[0]]
        loss = torch.nn.functional.mse_loss(out, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {'ms/step': step_ms(step, args.steps), 'outside %': 0.0, 'EMA %': 0.0, 'calls/step': 1.0}


def training(cfg: Any, args: argparse.Namespace, mode: str) -> dict[str, float]:
    """MMEngine's loop over a cache, with the time of each iteration and of the network in it."""
    from mmengine.runner import Runner

    with tempfile.TemporaryDirectory() as folder:
        write_random_cache(Path(folder) / 'cache', 2 * args.batch_size, cfg.model.denoiser.img_size)
        cfg.work_dir, cfg.log_level = f'{folder}/run', 'ERROR'
        cfg.train_dataloader.batch_size = args.batch_size
        cfg.train_dataloader.dataset.data_root = f'{folder}/cache'
        cfg.train_cfg.max_iters = args.steps
        cfg.default_hooks.pop('visualization')  # pictures need a VAE
        train_alone(cfg)
        clock = Clock(args.steps)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(clock.hook(), priority='LOWEST')
        model = runner.model
        losses = model.objective.losses
        model.objective.losses = clock.timed('forward', lambda denoise, *rest: losses(clock.timed('network', denoise), *rest))
        model.update_ema = clock.timed('ema', model.update_ema)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.optim_wrapper.update_params = clock.timed('update', runner.optim_wrapper.update_params)
        runner.train()
    ema = clock.share('ema')
    outside = 1 - clock.share('forward', 'update') + ema
    calls = clock.counts['network'] / args.steps
    return {'ms/step': clock.ms, 'outside %': 100 * outside, 'EMA %': 100 * ema, 'calls/step': calls}


def plain_sampling(cfg: Any, args: argparse.Namespace, mode: str) -> dict[str, float]:
    """Call the network and add what it returns, so many times."""
    import torch

    network = plain_network(cfg).eval()
    device = network.pos_embed.device
    label = torch.arange(args.batch_size, device=device)

    @torch.no_grad()
    def sample(steps: int) -> float:
        x = torch.randn(args.batch_size, *SHAPE, device=device)
        start = now()
        for k in range(steps):
            t = torch.full((args.batch_size,), k / steps, device=device)
            x = x + network(x, t, label)[:, : SHAPE[0]] / steps
        return now() - start

    sample(2)
    seconds = sample(args.sample_steps)
    return {'ms/step': 1000 * seconds / args.sample_steps, 'outside %': 0.0, 'EMA %': 0.0, 'calls/step': 1.0}


def sampling(cfg: Any, args: argparse.Namespace, mode: str) -> dict[str, float]:
    """Sample latents as the generator does, from its averaged weights."""
    import torch
    from mmengine.device import get_device
    from mmengine.registry import MODELS

    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(get_device())
    calls: list[float] = []
    sample = model.sampler.sample

    def counted(denoise: Any, *rest: Any) -> torch.Tensor:
        at = denoise.at

        def call(x: torch.Tensor, time: float) -> torch.Tensor:
            start = now()
            out = at(x, time)
            calls.append(now() - start)
            return out

        denoise.at = call
        return sample(denoise, *rest)

    def seconds(steps: int) -> float:
        model.sampler.num_steps = steps
        start = now()
        model.sample_latents(range(args.batch_size), range(args.batch_size))
        return now() - start

    seconds(2)
    model.sampler.sample = counted
    whole = seconds(args.sample_steps)
    outside = 1 - sum(calls) / whole
    if torch.cuda.is_available():  # once more, without waiting for each call
        model.sampler.sample = sample
        whole = seconds(args.sample_steps)
    return {
        'ms/step': 1000 * whole / args.sample_steps,
        'outside %': 100 * outside,
        'EMA %': 0.0,
        'calls/step': len(calls) / args.sample_steps,
    }
