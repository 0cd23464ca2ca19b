"""Parameters and floating-point operations of a config, and the cost of its training, without weights or data."""

import json
import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from usp_mm.config.options import H100_BF16, UTILISATION
from usp_mm.datasets import dataset_configs
from usp_mm.engine.records.flops import count_codec, count_flops, count_forward
from usp_mm.models.guidance import Guidance
from usp_mm.models.repa import REPA, Teacher
from usp_mm.models.repa.networks import timm_shape
from usp_mm.presets import TEACHERS
from usp_mm.vaes.build import OWN_SCALE
from usp_mm.vaes.settings import vae_name
from usp_mm.vaes.shapes import blank_codec

#: Images of ImageNet-1k's training split.
IMAGENET = 1_281_167
#: Where the configs have it, and caches of it.
_IMAGENET_FOLDERS = (('data', 'imagenet'), ('data', 'imagenet_latents'))


def complexity(cfg: Config) -> dict[str, Any]:
    """Cost of a config; a multiplication and an addition count as two operations. Everything happens on the meta device.

    Only matrix products and convolutions are counted, without activation checkpointing, optimizer, data loading and validation.

    Returns:
        A dict with the keys
        'model': the model's type;
        'network': what is trained, with 'parameters', 'trainable', 'forward' and 'train' (forward and backward) for one image
        (one crop in segmentation);
        'vae': None if there is none, else 'name', 'parameters', 'trained', 'online' (whether training encodes images),
        'encode', 'train' (cost of encoding one training image), 'decode';
        'teacher': None, or for REPA 'name', 'parameters', 'forward', 'online' (whether training runs it), 'train' (its cost for
        one training image), and 'projector' with 'parameters' and 'train';
        'batch': number of images per optimizer step; 'step': its operations; 'images' and 'total': those of the whole training
        (None if the size of the data set is unknown);
        'sample': None, or for a generated image 'calls' of the network and 'total' with the decoder (None for an adaptive
        solver).

    Raises:
        ValueError: The model cannot be counted, or the config has no training.
    """
    if missing := [key for key in ('model', 'train_dataloader', 'train_cfg', 'auto_scale_lr') if key not in cfg]:
        raise ValueError(f'no whole config, it lacks {", ".join(missing)}: expected one of training, not a base of some')
    if not (cfg.model.type in ('USP', 'USPClassifier') or {'denoiser', 'decode_head'} & set(cfg.model)):
        raise ValueError(
            f'no way to count the operations of a {cfg.model.type}: expected a config of pretraining (USP), understanding '
            '(USPClassifier), segmentation or generation'
        )
    network, vae, teacher = _network(cfg), _vae(cfg), _teacher(cfg)
    image = network['train'] + (vae['train'] if vae else 0)
    if teacher:
        image += teacher['train'] + teacher['projector']['train']
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
        sample=_sample(cfg, network['forward'], vae) if 'denoiser' in cfg.model else None,
    )


def gpu_hours(operations: float, peak: float = H100_BF16, utilisation: float = UTILISATION) -> float:
    """Hours that one GPU with this peak rate (operations/s) needs for this many operations at this utilisation."""
    return operations / (peak * utilisation) / 3600


def build_meta(cfg: Config) -> nn.Module:
    """Build the model of a config on the meta device, with shapes but no data, and without the VAE."""
    return _build(_network_config(cfg), cfg)


#: Parts that neither the network's parameters nor its operations depend on.
_NO_SHAPES = ('sampler', 'objective', 'gate_bias', 'drop_path_rate', 'alpha_bar_range', 'test_cfg', 'train_cfg', 'norm_pix')
_counted: dict[str, dict[str, int]] = {}


def _network(cfg: Config) -> dict[str, int]:
    """Parameters and operations of what is trained; each network is counted once per process."""
    model = _network_config(cfg)
    key = json.dumps(_without(model, _NO_SHAPES), sort_keys=True, default=str)
    if key not in _counted:
        built = _build(model, cfg)
        parameters = list(getattr(built, 'denoiser', built).parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        _counted[key] = dict(parameters=sum(p.numel() for p in parameters), trainable=trained, **count_flops(built))
    return dict(_counted[key])


def _network_config(cfg: Config) -> dict[str, Any]:
    model = _without(cfg.model.to_dict(), ('init_cfg',))
    images = model['data_preprocessor']
    if 'vae' in images:
        name = vae_name(images)
        vae = dict(name=name, path=_scale_folder(name).name) if name in OWN_SCALE else name
        model['data_preprocessor'] = dict(type=images['type'], vae=vae, load_vae=False)
    if 'denoiser' in model:
        model = {key: value for key, value in model.items() if key != 'guidance'} | dict(ema=None, sample_model='model')
    if 'vae' in (backbone := model.get('backbone', {})):
        backbone['vae'] = vae_name(backbone)
    for key in ('encode_images', 'train_vae'):
        backbone.pop(key, None)
    return model


@cache
def _scale_folder(vae: str) -> TemporaryDirectory:
    """A temporary folder with a VAE scale, which affects no shape; it exists until the process ends."""
    folder = TemporaryDirectory(prefix='usp_mm-')
    codec = blank_codec(vae)
    assert codec is not None
    network: Any = codec.network  # a network of diffusers
    network.save_config(folder.name)
    return folder


def _without(node: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(node, dict):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(value, keys) for value in node] if isinstance(node, list | tuple) else node


def _build(model: dict[str, Any], cfg: Config, device: str = 'meta') -> Any:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')), torch.device(device):
        return MODELS.build(model)


def _vae(cfg: Config) -> dict[str, Any] | None:
    """The VAE's costs for the images on which the config trains."""
    model = cfg.model
    backbone = model.get('denoiser') or model.backbone
    name = vae_name(model.data_preprocessor if 'vae' in model.data_preprocessor else backbone)
    counted = _count_vae(name, backbone.img_size)
    if counted is None:
        return None
    trained, online = backbone.get('train_vae', False), not _cached(cfg.train_dataloader.dataset)
    train = counted['encode_train'] if trained else counted['encode'] if online else 0
    return dict(
        name=name, parameters=counted['parameters'], trained=trained, online=online,
        encode=counted['encode'], train=train, decode=counted['decode'],
    )  # fmt: skip


@cache
def _count_vae(name: str, img_size: int) -> dict[str, int] | None:
    codec = blank_codec(name)
    if codec is None:
        return None
    assert codec.network is not None
    return dict(parameters=sum(p.numel() for p in codec.network.parameters()), **count_codec(codec, img_size))


def _cached(dataset: ConfigDict) -> bool:
    return any(one.type == 'LatentCacheDataset' for one in dataset_configs(dataset))


def _teacher(cfg: Config) -> dict[str, Any] | None:
    """Costs of REPA's frozen teacher, with one forward pass per image (arXiv 2410.06940), and of its projector."""
    if not cfg.model.get('repa'):
        return None
    denoiser = _build(_network_config(cfg), cfg).denoiser
    arguments = {key: value for key, value in cfg.model.repa.to_dict().items() if key != 'type'}
    with torch.device('meta'):
        repa = REPA(denoiser.geometry, denoiser.embed_dims, denoiser.num_layers, **arguments)
        network, images = _teacher_network(repa.teacher, arguments.get('teacher'))
        routed = denoiser.route is not None and denoiser.route.inside(repa.depth)
        tokens = torch.empty(1, denoiser.route.num_keep if routed else math.prod(repa.grid), denoiser.embed_dims)
    forward, online = (
        count_forward(network, images),
        not any(one.get('teacher') for one in dataset_configs(cfg.train_dataloader.dataset)),
    )
    projector = dict(
        parameters=sum(p.numel() for p in repa.projector.parameters()), train=3 * count_forward(repa.projector, tokens)
    )
    parameters = sum(p.numel() for p in network.parameters())
    return dict(
        name=repa.teacher.name, parameters=parameters, online=online, forward=forward, train=forward * online,
        projector=projector,
    )  # fmt: skip


def _teacher_network(teacher: Teacher, spec: Any) -> tuple[nn.Module, Tensor]:
    """A teacher's network without weights, and an input for it: an image, or a latent for an encoder on latents."""
    if isinstance(spec, dict) and 'backbone' in spec:
        backbone = {key: value for key, value in spec['backbone'].items() if key not in ('init_cfg', 'encode_images')}
        network = MODELS.build(backbone)
        geometry = getattr(network, 'geometry', None)
        if spec['backbone'].get('encode_images') and geometry is not None:
            return network, torch.empty(1, geometry.channels, geometry.latent_size, geometry.latent_size)
    else:
        import timm

        model, _, patch = TEACHERS.get(teacher.name) or timm_shape(teacher.name)
        options: dict[str, Any] = {} if patch is None else dict(img_size=teacher.size)
        network = timm.create_model(model, num_classes=0, **options)
    return network, torch.empty(1, 3, teacher.size, teacher.size)


def _training_images(cfg: Config) -> int | None:
    """Number of images (crops) that training uses."""
    loop = cfg.train_cfg
    if 'max_iters' in loop:
        return loop.max_iters * cfg.auto_scale_lr.base_batch_size
    imagenet = Path(cfg.train_dataloader.dataset.get('data_root', '')).parts[:2] in _IMAGENET_FOLDERS
    return loop.max_epochs * IMAGENET if imagenet else None


class _Counter(nn.Module):
    """Returns zeros, and counts the images of its calls."""

    null_label = 1

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels, self.calls = out_channels, 0

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.calls += len(x)
        return x.new_zeros(len(x), self.out_channels, *x.shape[2:])


def _sample(cfg: Config, forward: int, vae: dict[str, Any] | None) -> dict[str, int] | None:
    """Cost of a sample: runs the sampler with a network that counts its calls."""
    sampler, objective = (_build(part, cfg, 'cpu') for part in (cfg.model.sampler, cfg.model.objective))
    if not getattr(sampler, 'fixed_steps', True):
        return None
    network, latent = _Counter(objective.out_channels(1)), torch.zeros(1, 1, 1, 1)
    denoise = Guidance(**cfg.model.get('guidance', {})).denoise(network, torch.zeros(1).long(), objective)
    sampler.sample(denoise, latent, objective, lambda k: latent)
    return dict(calls=network.calls, total=network.calls * forward + (vae['decode'] if vae else 0))
