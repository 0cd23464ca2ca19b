"""Parameters and floating-point operations of a config, and what its training costs, without weights or data."""

import copy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from usp_mm.engine.flops import count_codec, count_flops, count_forward
from usp_mm.models import ODESampler
from usp_mm.vaes.blank import blank_codec

#: Images of ImageNet-1k's training split.
IMAGENET = 1_281_167
#: Of an H100 (SXM), dense bfloat16 with float32 accumulation, in operations a second (NVIDIA's data sheet).
H100_BF16 = 989.4e12
UTILISATION = 0.4


def complexity(cfg: Config) -> dict[str, Any]:
    """What a config costs; a multiplication and an addition are two operations. Everything happens on the meta device.

    Only matrix products and convolutions count. Activation checkpointing, the optimizer, data loading and validation don't.

    Returns:
        'model', its type, and
        'network': what is trained: 'parameters', 'trainable', 'forward' and 'train' (forward and backward) of an image
        (of a crop in segmentation);
        'vae', None where there is none: 'name', 'parameters', 'trained', 'online' (whether training encodes), 'encode',
        'train' (what encoding a training image costs), 'decode';
        'teacher', None or 'name', 'parameters', 'forward': REPA's;
        'batch', images of an optimizer step, and 'step', its operations; 'images' and 'total' of the whole training (None
        where the data set's size is not known);
        'sample', None or 'calls' of the network and 'total' with the decoder, of a generated image (None for an adaptive
        solver).

    Raises:
        ValueError: a model that can't be counted.
    """
    if not (cfg.model.type in ('USP', 'USPClassifier') or {'denoiser', 'decode_head'} & set(cfg.model)):
        raise ValueError(
            f'no way to count the operations of a {cfg.model.type}: expected a config of pretraining (USP), understanding '
            '(USPClassifier), segmentation or generation'
        )
    model = build_meta(cfg)
    network = count_flops(model)
    parameters = list(model.denoiser.parameters() if hasattr(model, 'denoiser') else model.parameters())
    network = dict(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        **network,
    )
    vae, teacher = _vae(cfg), _teacher(cfg)
    image = network['train'] + (vae['train'] if vae else 0) + (teacher['forward'] if teacher else 0)
    batch, images = cfg.auto_scale_lr.base_batch_size, _training_images(cfg)
    return dict(
        model=cfg.model.type,
        network=network,
        vae=vae,
        teacher=teacher,
        batch=batch,
        step=batch * image,
        images=images,
        total=None if images is None else images * image,
        sample=_sample(model, network['forward'], vae) if hasattr(model, 'denoiser') else None,
    )


def gpu_hours(operations: float, peak: float = H100_BF16, utilisation: float = UTILISATION) -> float:
    """Hours of one GPU of this peak rate that so many operations take at this utilisation."""
    return operations / (peak * utilisation) / 3600


def build_meta(cfg: Config) -> nn.Module:
    """The model of a config on the meta device: shapes, no data, and no VAE."""
    model = copy.deepcopy(cfg.model)
    if 'vae' in model.data_preprocessor:
        model.data_preprocessor.update(load_vae=False, vae_path=None, vae_stats=None)
        if model.data_preprocessor.vae == 'tiny':
            model.data_preprocessor.vae = 'sd-f8d4'  # the same latents; the tiny one's scale is in its folder
    if 'backbone' in model:
        for key in ('codec', 'train_vae'):
            model.backbone.pop(key, None)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')), torch.device('meta'):
        return MODELS.build(model)


def _vae(cfg: Config) -> dict[str, Any] | None:
    """The VAE's part, of the images that the config trains on."""
    model = cfg.model
    backbone = model.get('denoiser') or model.backbone
    name = model.data_preprocessor.get('vae') or backbone.get('vae', 'sd-f8d4')
    codec = blank_codec(name)
    if codec is None:
        return None
    counted = count_codec(codec, backbone.img_size)
    trained, online = backbone.get('train_vae', False), not _cached(cfg.train_dataloader.dataset)
    train = counted['encode_train'] if trained else counted['encode'] if online else 0
    parameters = sum(parameter.numel() for parameter in codec.network.parameters())
    return dict(
        name=name, parameters=parameters, trained=trained, online=online,
        encode=counted['encode'], train=train, decode=counted['decode'],
    )  # fmt: skip


def _cached(dataset: dict) -> bool:
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset['type'] == 'LatentCacheDataset'


def _teacher(cfg: Config) -> dict[str, Any] | None:
    """REPA's frozen teacher, DINOv2-B on 224 pixels, 16 × 16 tokens: one forward pass an image (arXiv 2410.06940)."""
    if not cfg.model.get('repa'):
        return None
    import timm

    with torch.device('meta'):
        network = timm.create_model('vit_base_patch14_dinov2', img_size=224, num_classes=0)
        forward = count_forward(network, torch.empty(1, 3, 224, 224))
    return dict(name='DINOv2-B', parameters=sum(p.numel() for p in network.parameters()), forward=forward)


def _training_images(cfg: Config) -> int | None:
    """Images (crops) that training sees."""
    loop = cfg.train_cfg
    if 'max_iters' in loop:
        return loop.max_iters * cfg.auto_scale_lr.base_batch_size
    imagenet = cfg.train_dataloader.dataset.get('data_root', '').startswith('data/imagenet')
    return loop.max_epochs * IMAGENET if imagenet else None


def _sample(model: nn.Module, forward: int, vae: dict[str, Any] | None) -> dict[str, int] | None:
    sampler = model.sampler
    if not getattr(sampler, 'fixed_steps', True):
        return None
    steps = sampler.num_steps - isinstance(sampler, ODESampler)  # points of a grid
    calls = steps * (2 if getattr(sampler, 'method', '') in ('heun', 'heun2') else 1) * (2 if model.guidance.active else 1)
    return dict(calls=calls, total=calls * forward + (vae['decode'] if vae else 0))
