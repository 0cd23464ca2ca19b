"""The linear probe on cached latents and cached features, fine-tuning and UPerNet, against plain eager loops.

Each row is measured in a fresh process, with untrained weights, on images that are noise. "plain" is a loop over the same
network without MMEngine: frozen VAE, forward pass with the loss, backward pass and one optimizer's step, on one batch of
images that lies on the device. It does not load, crop or augment; of the probe it encodes every batch again, through VAE
and frozen backbone. "ours" is MMEngine's training loop over JPEG files with the config's pipeline, workers and every default
hook. "outside" is what its iterations take beyond the VAE, forward, backward and the optimizer's step, "data" the part of it
that waits for a batch. The VAE computes in float32, under autocast too, except where "+ VAE" says bfloat16.

The probe's "cached latents" is that loop over a latent cache, and "cached features" trains the head of the probe tools on
features that the frozen model extracted once. What is done once, per image, is "once": writing a cache of both views, or
extracting the features, images decoded and cropped. Over 90 epochs that counts once.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmark_data import cache_ms, photos, training_data, warm_ms, write_random_vae
from benchmark_lib import Clock, in_fresh_process, peak_memory, step_ms
from benchmark_models import train_alone

HELP = 'linear probe from caches, fine-tuning and UPerNet: time, time outside the network, memory'
CONFIGS = {
    'probe': 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py',
    'finetune': 'configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py',
    'segment': 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py',
}
CACHE_CONFIG = 'configs/_base_/datasets/in1k_latents.py'
#: Sides of the images and images a step: (GPU, CPU).
SIZES = {'probe': (224, 224), 'finetune': (224, 224), 'segment': (512, 128)}
BATCHES = {'probe': (256, 4), 'finetune': (128, 4), 'segment': (2, 2)}
_STEPS = ('plain fp32', 'plain bf16', 'ours fp32', 'ours bf16', 'ours bf16 + VAE')
MODES = {
    'probe': ('plain fp32', 'plain bf16', 'cached latents fp32', 'cached latents bf16', 'cached features fp32'),
    'finetune': _STEPS,
    'segment': _STEPS,
}
VAES = {'sd': 'sd-f8d4', 'tiny': 'tiny'}
EPOCHS = 90


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--arch', default='base', help='default: %(default)s')
    parser.add_argument('--large', action=argparse.BooleanOptionalAction, help='ViT-L too (default: on a GPU)')
    parser.add_argument('--tasks', nargs='+', choices=CONFIGS, default=list(CONFIGS), help='default: all')
    parser.add_argument('--dtypes', nargs='+', choices=['fp32', 'bf16'], default=['fp32', 'bf16'], help='default: both')
    parser.add_argument('--size', type=int, help='side of the images (default: 224 and 512; UPerNet on a CPU 128)')
    parser.add_argument('--batch-size', type=int, help="default: the configs' on a GPU; on a CPU 4, of UPerNet 2")
    parser.add_argument(
        '--vae', choices=VAES, help="shape of the untrained VAE (default: Stable Diffusion's on a GPU, else tiny)"
    )
    parser.add_argument('--workers', type=int, help="processes that load data (default: the configs', fewer than the cores)")
    parser.add_argument('--steps', type=int, help='of which the first third is not counted (default: 30 on a GPU, 6 on a CPU)')
    parser.add_argument(
        '--one-process', action='store_true', help='measure all rows in this process: starts faster, but memory adds up'
    )
    parser.add_argument('--row', type=json.loads, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    gpu = torch.cuda.is_available()
    args.steps, args.vae = args.steps or (30 if gpu else 6), args.vae or ('sd' if gpu else 'tiny')
    check(args)
    if args.row:
        return dict(rows=[measure(args, **args.row)])
    rows = []
    for row in plan(args, gpu):
        options = ['--row', json.dumps(row), '--vae', args.vae, '--steps', args.steps]
        if args.workers is not None:
            options += ['--workers', args.workers]
        rows.append(measure(args, **row) if args.one_process else in_fresh_process('understand', options))
    whole = compare(rows)
    result = dict(rows=rows, data=f'noise images, untrained VAE of the shape of {VAES[args.vae]}')
    return {**result, f'probe of {EPOCHS} epochs ×': whole} if whole else result


def check(args: argparse.Namespace) -> None:
    """ValueError for what would end the first row."""
    from usp_mm.presets import ARCHS, lookup

    lookup(ARCHS, args.arch, 'arch')
    if args.steps < 3:
        raise ValueError(f'--steps {args.steps} must be 3 or more: the first third is not counted')
    if args.batch_size is not None and args.batch_size < 2:
        raise ValueError(f'--batch-size {args.batch_size} must be 2 or more: BatchNorm needs a variance')
    if args.size is not None and (args.size < 32 or args.size % 16):
        raise ValueError(f'--size {args.size} must be a multiple of 16, 32 or more: a token is 16 pixels')


def plan(args: argparse.Namespace, gpu: bool) -> list[dict[str, Any]]:
    """Arguments of `measure`, a dict for each row."""
    large = gpu if args.large is None else args.large
    return [
        dict(
            task=task,
            arch=arch,
            mode=mode,
            size=args.size or SIZES[task][not gpu],
            batch=args.batch_size or BATCHES[task][not gpu],
        )
        for arch in dict.fromkeys([args.arch, *(['large'] if large else [])])
        for task in args.tasks
        for mode in MODES[task]
        if _dtype(mode) in args.dtypes
    ]


def _dtype(mode: str) -> str:
    return 'bf16' if 'bf16' in mode else 'fp32'


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Add speeds against the plain loops of the same task and size to the rows.

    Returns:
        Of the probe, by network and mode: the same for `EPOCHS` epochs with what is done once, against the plain loop of the
        same precision.
    """
    whole = {}
    for row in rows:
        peers = [peer for peer in rows if all(peer[key] == row[key] for key in ('task', 'network'))]
        plain = next(peer for peer in peers if peer['mode'] == f'plain {_dtype(row["mode"])}')
        row['speed ×'] = peers[0]['ms/step'] / row['ms/step']
        row['same precision ×'] = plain['ms/step'] / row['ms/step']
        if row['task'] == 'probe' and row is not plain:
            ms = row['once ms/image'] + EPOCHS * row['ms/step'] / row['batch']
            whole[f'{row["network"]} {row["mode"]}'] = round(EPOCHS * plain['ms/step'] / plain['batch'] / ms, 3)
    return whole


def measure(args: argparse.Namespace, task: str, arch: str, mode: str, size: int, batch: int) -> dict[str, Any]:
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    MMLogger.get_current_instance().setLevel('ERROR')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_vae(folder / 'vae', VAES[args.vae])
        cfg = config(args, folder, task, arch, mode, size, batch)
        loop = plain_loop if 'plain' in mode else head_alone if 'features' in mode else runner_loop
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            measured = loop(cfg, args, folder, task, mode, size)
    return {
        'task': task, 'network': f'ViT-{arch}', 'mode': mode, 'size': size, 'batch': batch, **measured,
        'images/s': 1000 * batch / measured['ms/step'],
    }  # fmt: skip


def config(args: argparse.Namespace, folder: Path, task: str, arch: str, mode: str, size: int, batch: int) -> Any:
    """The task's config at a size, as the mode says, on the folder's data and VAE."""
    import os

    from mmengine.config import Config

    import usp_mm  # noqa: F401
    from usp_mm.presets import ARCHS, lookup

    cfg = Config.fromfile(CONFIGS[task])
    model, depth = cfg.model, lookup(ARCHS, arch, 'arch')['depth']
    vae = dict(name=VAES[args.vae], path=str(folder / 'vae'), dtype='bfloat16' if '+ VAE' in mode else 'float32')
    model.backbone.update(arch=arch, img_size=size, init_cfg=None)
    if task == 'segment':
        model.backbone.vae = vae
        model.data_preprocessor.size = (size, size)
    elif 'latents' in mode:
        model.data_preprocessor.load_vae = False
        cfg.train_dataloader = Config.fromfile(CACHE_CONFIG).train_dataloader
    else:
        model.data_preprocessor.vae = vae
    if task == 'probe':
        model.backbone.frozen_stages = depth
    if 'fp32' in mode:
        cfg.optim_wrapper.type = 'OptimWrapper'
    loader, cores = cfg.train_dataloader, len(os.sched_getaffinity(0))
    workers = min(loader.num_workers, cores - 1) if args.workers is None else args.workers
    loader.update(batch_size=batch, num_workers=workers, persistent_workers=workers > 0)
    for step in [*loader.dataset.get('pipeline', []), *cfg.val_dataloader.dataset.pipeline]:
        _resize(step, size)
    return cfg


def _resize(step: Any, size: int) -> None:
    """Let a transform of a pipeline make images of another side."""
    sides = dict(RandomResizedCrop=size, ResizeEdge=size * 8 // 7, RandomResize=(4 * size, size))
    if step.type in sides:
        step.scale = sides[step.type]
    if step.type == 'MAERandomResizedCrop':
        step.size = size
    if 'crop_size' in step:
        step.crop_size = (size, size) if step.type == 'RandomCrop' else size


def network(cfg: Any) -> Any:
    """The config's model with random weights, on the device."""
    from mmengine.device import get_device
    from mmengine.registry import MODELS

    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(get_device())


def plain_loop(cfg: Any, args: argparse.Namespace, folder: Path, task: str, mode: str, size: int) -> dict[str, float]:
    """VAE, forward, backward and the optimizer's step, and nothing else."""
    import torch
    from mmengine.device import get_device

    torch.backends.cudnn.benchmark = cfg.env_cfg.cudnn_benchmark
    model, device, batch = network(cfg).train(), get_device(), cfg.train_dataloader.batch_size
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    if task == 'segment':
        loss_of, labels = plain_segmentation, torch.randint(0, 150, (batch, size, size), device=device)
    else:
        loss_of, labels = plain_classification, torch.arange(batch, device=device) % 1000
    trained = [p for p in model.parameters() if p.requires_grad]
    if task == 'probe':
        optimizer: torch.optim.Optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled='bf16' in mode):
            loss = loss_of(model, (images.float() - 127.5) / 127.5, labels, mix=task == 'finetune')
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _columns(step_ms(step, args.steps))


def _columns(ms: float, outside: float = 0.0, data: float = 0.0, once: float = 0.0) -> dict[str, float]:
    """Of a row: milliseconds of a step, shares of it, milliseconds an image of what is done once; and memory so far."""
    shares = {'outside %': 100 * outside, 'data %': 100 * data}
    return {'ms/step': ms, **shares, 'once ms/image': once, 'peak GiB': peak_memory()}


def plain_classification(model: Any, images: Any, labels: Any, mix: bool) -> Any:
    """Cross-entropy of a classifier; with `mix`, of latents that are mixed and labels that are smoothed."""
    from torch.nn.functional import cross_entropy, one_hot

    codec = model.data_preprocessor.codec
    latents = codec.mode(codec.encode(images))
    target = one_hot(labels, 1000).float()
    if mix:
        latents, target = (0.7 * x + 0.3 * x.flip(0) for x in (latents, target))
    return cross_entropy(model.head(model.extract_feat(latents)), target, label_smoothing=0.1 if mix else 0.0)


def plain_segmentation(model: Any, images: Any, labels: Any, mix: bool) -> Any:
    """Cross-entropy of both heads at the images' size."""
    from torch.nn.functional import cross_entropy, interpolate

    features = model.extract_feat(images)
    logits = [
        interpolate(head(features), labels.shape[1:], mode='bilinear') for head in (model.decode_head, model.auxiliary_head)
    ]
    return cross_entropy(logits[0], labels, ignore_index=255) + 0.4 * cross_entropy(logits[1], labels, ignore_index=255)


def runner_loop(cfg: Any, args: argparse.Namespace, folder: Path, task: str, mode: str, size: int) -> dict[str, float]:
    """MMEngine's loop, with the time of each iteration and of the network in it."""
    from mmengine.runner import Runner

    cached = 'latents' in mode
    training_data(cfg, args.steps, folder, task, size, cached)
    cfg.work_dir, cfg.log_level, cfg.experiment_name = str(folder / 'run'), 'ERROR', f'{task} {mode} {folder.name}'
    cfg.train_cfg.update(dict(max_iters=args.steps) if 'max_iters' in cfg.train_cfg else dict(max_epochs=1))
    cfg.param_scheduler = cfg.param_scheduler[:1]  # the warm-up: what follows would begin after the end
    train_alone(cfg)
    clock = Clock(args.steps)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(clock.hook(), priority='LOWEST')
    model = runner.model
    model.loss = clock.timed('loss', model.loss)
    network_calls = ['loss', 'update']
    if task != 'segment':  # whose VAE is a part of the backbone
        codec = model.data_preprocessor.codec
        codec.encode = clock.timed('vae', codec.encode)
        network_calls.append('vae')
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.update_params = clock.timed('update', runner.optim_wrapper.update_params)
    runner.train()
    measured = _columns(clock.ms, 1 - clock.share(*network_calls), clock.share('data'))
    if cached:  # afterwards, as the VAE takes memory
        measured['once ms/image'] = cache_ms(VAES[args.vae], folder, size, cfg.train_dataloader)
    return measured


def head_alone(cfg: Any, args: argparse.Namespace, folder: Path, task: str, mode: str, size: int) -> dict[str, float]:
    """Features once, by the frozen model of the probe tools, and then steps of their head."""
    import torch

    from usp_mm.probing.data import extract, open_data, shuffled
    from usp_mm.probing.features import load_frozen
    from usp_mm.probing.layer_probe import HeadTrainer, ProbeSettings, make_heads

    loader, checkpoint = cfg.train_dataloader, folder / 'encoder.pth'
    batch, num, steps = loader.batch_size, 2 * loader.batch_size, 50 * args.steps
    torch.save(dict(state_dict=network(cfg).state_dict()), checkpoint)
    model = load_frozen(cfg, checkpoint)
    data = open_data(cfg, photos(folder, num, size), training=True, workers=loader.num_workers)
    kept: list[Any] = []
    once = warm_ms(lambda: kept.append(extract(model, data, [model.depth], batch, 'features'))) / num
    (features,), labels = kept[-1]
    heads = make_heads([model.depth], model.network.embed_dims, 1000, seed=0).to(model.device)
    trainer = HeadTrainer(heads, ProbeSettings(EPOCHS, batch), steps=max(1, steps // EPOCHS))
    clock = Clock(steps)
    step = clock.timed('step', trainer.step)
    for epoch in range(steps // 2):
        for rows in map(torch.tensor, shuffled(num, batch, 0, epoch)):
            step([features[rows].to(model.device)], labels[rows].to(model.device))
            clock.end_iteration()
    outside = 1 - clock.share('step')  # all of which is taking the rows of a batch
    return _columns(clock.ms, outside, outside, once)
