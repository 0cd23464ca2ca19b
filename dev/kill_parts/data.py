"""The data of the scenarios: noise images, an untrained VAE, and what the tools make of them."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from .runs import log_of, start, wait
from .scenarios import HERE, Scenario, cache, training

_VALIDATION = """
val_dataloader = dict(batch_size=8, dataset=dict(num_samples=16, num_classes=4))
val_evaluator = dict(
    _delete_=True,
    type='Evaluator',
    metrics=dict(
        type='FeatureMetrics', extractor=dict(type='PixelFeatures'), reference='{data}/images', num_reference_pr=16,
        cache_dir='{data}/statistics',
    ),
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
"""
_VAE = "vae=dict(path='{data}/vae')"
_LATENTS = "dict(data_root='{data}/latents')"
#: Configs by name; they are written into the folder of the data.
CONFIGS = {
    'pretrain': f"""
_base_ = ['{{root}}/configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py']
model = dict(data_preprocessor=dict({_VAE}))
train_dataloader = dict(batch_size=16, dataset={_LATENTS})
train_cfg = dict(max_epochs=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, eta_min=0.0, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=2), checkpoint=dict(interval=1, max_keep_ckpts=2), restoration=dict(interval=2))
""",
    'pretrain-keep1': """
_base_ = ['./pretrain.py']
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
""",
    'pretrain-images': """
_base_ = ['./pretrain.py']
train_dataloader = dict(
    _delete_=True,
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root='{data}',
        data_prefix='images',
        pipeline=[
            dict(type='SeedBySample'),
            dict(type='LoadImage'),
            dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
model = dict(data_preprocessor=dict(posterior='sample'))
""",
    'probe': f"""
_base_ = ['{{root}}/configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py']
model = dict(
    data_preprocessor=dict({_VAE}),
    backbone=dict(init_cfg=dict(checkpoint='{{data}}/usp.pth')),
    head=dict(num_classes=4),
)
train_dataloader = dict(batch_size=16, dataset={_LATENTS})
val_dataloader = dict(dataset={_LATENTS})
test_dataloader = val_dataloader
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=4)
default_hooks = dict(
    logger=dict(interval=2), checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='accuracy/top1', rule='greater')
)
""",
    'sit': f"""
_base_ = ['{{root}}/configs/sit/sit-tiny-p2_1xb64-2k_digits.py']
model = dict(data_preprocessor=dict({_VAE}), denoiser=dict(num_classes=4), sampler=dict(num_steps=2))
train_dataloader = dict(batch_size=16, dataset={_LATENTS})
train_cfg = dict(max_iters=12, val_interval=4)
{_VALIDATION}
default_hooks = dict(
    logger=dict(interval=2),
    checkpoint=dict(interval=3, max_keep_ckpts=2, save_best='Feature/FD', rule='less'),
    visualization=dict(interval=5, n_row=2, vis_kwargs_list=dict(forward_kwargs=dict(labels=[0, 1, 2, 3]))),
)
""",
    'dit': f"""
_base_ = ['{{root}}/configs/dit/dit-tiny-p2_1xb64-2k_digits.py']
model = dict(data_preprocessor=dict({_VAE}), denoiser=dict(num_classes=4))
train_dataloader = dict(batch_size=16, dataset={_LATENTS})
train_cfg = dict(max_iters=2, val_interval=10)
{_VALIDATION}
default_hooks = dict(
    checkpoint=dict(interval=2),
    visualization=dict(interval=1000, vis_kwargs_list=dict(forward_kwargs=dict(labels=[0, 1, 2, 3]))),
)
""",
}
#: Checkpoints that scenarios read: the config that is trained, and its last one.
_CHECKPOINTS = {'usp': ('pretrain', 'epoch_4.pth'), 'sit': ('sit', 'iter_12.pth'), 'dit': ('dit', 'iter_2.pth')}


def make_data(root: Path, data: Path, needs: Iterable[str]) -> None:
    """Fill `data` unless it is complete: images, a VAE, latents, configs, and the checkpoints that are needed."""
    if not (data / 'complete').exists():
        shutil.rmtree(data, ignore_errors=True)
        _make_inputs(root, data)
        (data / 'complete').touch()
    for name in sorted(set(needs)):
        if not (data / f'{name}.pth').exists():
            config, checkpoint = _CHECKPOINTS[name]
            folder = data / f'work-{name}'
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _run(training(data, name, config), folder)
            (folder / checkpoint).rename(data / f'{name}.pth')


def _make_inputs(root: Path, data: Path) -> None:
    _make_images(data / 'images')
    for name, text in CONFIGS.items():
        (data / f'{name}.py').write_text(text.replace('{root}', str(root)).replace('{data}', str(data)))
    _run(Scenario('vae', 'train_tiny_vae.py', (f'{data}/images', f'{data}/vae', '--steps', '2', '--batch-size', '8')), data)
    written = cache(data, 'latents')
    words = (*(word.replace(f'{HERE}/cache', f'{data}/latents') for word in written.words), '--no-flip')
    _run(Scenario('latents', written.tool, words), data)


def _make_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for i in range(64):
        path = folder / f'class{i % 4}' / f'{i:03d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(noise.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        small.resize((72, 72), Image.Resampling.BICUBIC).save(path)


def _run(scenario: Scenario, folder: Path) -> None:
    log = folder / 'made.log'
    code, _ = wait(start(scenario, folder, log))
    if code:
        raise SystemExit(f'making the data failed with exit code {code}: {log_of(log)[-3000:]}')
