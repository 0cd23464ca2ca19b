"""Feature extractors other than ADM's, for evaluation without Inception's weights and of images other than photographs.

An extractor is a module registered in MODELS that maps RGB images uint8[N, 3, H, W] to features float32[N, D]. It has a string
attribute `identity`, which reports and cached statistics use: extractors with the same identity give the same features.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn.functional import interpolate

from usp_mm.config.lookup import find_config
from usp_mm.fileio.atomic import sha256
from usp_mm.fileio.strict_loading import load_exactly
from usp_mm.fileio.weights import read_trained, read_weights
from usp_mm.registry import MODELS
from usp_mm.vaes.record import check_model_vae, codec_of

from .inception import full_float32


@MODELS.register_module()
class PixelFeatures(nn.Module):
    """The pixels of the image, averaged down to `size` × `size` and scaled to [0, 1], as features [N, 3·size²]."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.size = size
        self.identity = f'pixels {size}x{size}'

    def forward(self, images: Tensor) -> Tensor:
        return interpolate(images.float() / 255, size=(self.size, self.size), mode='area').flatten(1)


@MODELS.register_module()
class TimmFeatures(nn.Module):
    """The input of a timm model's classifier as features [N, D].

    Images are resized (bicubic) to the size and normalised with the statistics in timm's configuration of the model.

    Args:
        model: timm's name of the model.
        checkpoint: Its weights, a `.safetensors`, `.pth`, `.pt` or `.ckpt` file.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: timm has no such model, or the weights are those of another model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: str, checkpoint: str | Path) -> None:
        super().__init__()
        import timm
        from timm.data import resolve_model_data_config

        if not timm.is_model(model):
            raise ValueError(f"timm has no model '{model}': see timm.list_models()")
        network: Any = timm.create_model(model, pretrained=False)  # Any, since nn.Module has no reset_classifier
        load_exactly(network, read_weights(checkpoint), checkpoint, f"timm's '{model}'", fix='give the weights of this model')
        network.reset_classifier(0)
        self.network = network.eval().requires_grad_(False)
        config = resolve_model_data_config(network)
        self.size = tuple(config['input_size'][1:])
        self.register_buffer('mean', 255 * torch.tensor(config['mean']).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', 255 * torch.tensor(config['std']).view(-1, 1, 1), persistent=False)
        self.identity = f'timm {model}, weights sha256 {sha256(Path(checkpoint))[:16]}'

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        with full_float32(images.device):
            return self.network((_resize(images, self.size) - self.mean) / self.std)


@MODELS.register_module()
class ClassifierFeatures(nn.Module):
    """The input of the last layer of an mmpretrain classifier (such as a fine-tuned or probed USP) as features [N, D].

    Normalisation and, in a latent model, the VAE are the model's own.

    Args:
        config: A config file, the name (with .py) of a config that comes with the package, or mmpretrain's name of a model.
        checkpoint: Weights of the classifier.
        img_size: Side in pixels that images are resized to (bicubic); None keeps their size.
        stage: Stage of mmpretrain's `extract_feat`, 'backbone', 'neck' or 'pre_logits'. Feature maps are averaged over space.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The weights are those of another model, or a latent model's config has no VAE weights or another VAE.
    """

    def __init__(self, config: str, checkpoint: str | Path, img_size: int | None = None, stage: str = 'pre_logits') -> None:
        super().__init__()
        from mmpretrain import get_model

        cfg = Config.fromfile(find_config(config)) if str(config).endswith('.py') else config
        network = get_model(cfg, pretrained=False)
        trained = read_trained(checkpoint)
        load_exactly(network, trained.weights, checkpoint, f"the model of '{config}'")
        check_model_vae(trained, codec_of(network), cfg)
        self.network = network.eval().requires_grad_(False)
        self.img_size, self.stage = img_size, stage
        built = hashlib.sha256(repr(network).encode()).hexdigest()[:8]
        weights = sha256(Path(checkpoint))[:16]
        self.identity = f'{Path(config).stem} ({built}), {stage} at {img_size or "image"} px, weights sha256 {weights}'
        codec = getattr(network.data_preprocessor, 'codec', None)  # neither in the module tree nor in the checkpoint
        if codec is not None:
            self.identity += f', VAE {codec.name} in {codec.dtype}, weights sha256 {codec.weight_hash}'

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        images = images if self.img_size is None else _resize(images, (self.img_size, self.img_size))
        with full_float32(images.device):
            inputs = self.network.data_preprocessor(dict(inputs=images.flip(1)))['inputs']  # BGR, as mmcv reads files
            features = self.network.extract_feat(inputs, stage=self.stage)
        if isinstance(features, tuple | list):
            features = features[-1]
        return features.flatten(2).mean(2) if features.ndim == 4 else features


def _resize(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize uint8 images to float32 in [0, 255], bicubic with anti-aliasing."""
    return interpolate(images.float(), size=size, mode='bicubic', antialias=True).clamp(0, 255)


def extract_batch(extractor: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Compute and check the features of a batch, as {name: float32[N, D]}.

    Args:
        extractor: Module that returns features by name, or a single tensor, which is then named 'features'.
        images: RGB images on the extractor's device, uint8[N, 3, H, W].

    Raises:
        ValueError: The images have another dtype or shape, or features are not [N, D] or not finite.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f'images are {images.dtype}{list(images.shape)}: expected uint8[N, 3, height, width], RGB')
    with torch.no_grad():
        found = extractor(images)
    features = dict(found) if isinstance(found, Mapping) else dict(features=found)
    name = type(extractor).__name__
    for key, value in features.items():
        if value.ndim != 2 or len(value) != len(images):
            raise ValueError(f"{name} gave '{key}' of shape {list(value.shape)} for {len(images)} images: expected [N, D]")
        features[key] = value.float()
        if not torch.isfinite(features[key]).all():
            bad = (~torch.isfinite(features[key]).all(1)).nonzero().flatten().tolist()
            raise ValueError(f"{name} gave '{key}' with NaN or infinity for images {bad[:5]} of the batch: check its weights")
    return features


def features_of(images: Tensor, extractor: nn.Module, batch_size: int = 64) -> dict[str, Tensor]:
    """Features by name, float32[N, D] on the CPU, of RGB images in memory, uint8[N, 3, H, W]."""
    device = next((x.device for x in (*extractor.parameters(), *extractor.buffers())), torch.device('cpu'))
    parts: list[dict[str, Tensor]] = []
    for batch in images.split(batch_size):
        parts.append({key: value.cpu() for key, value in extract_batch(extractor, batch.to(device)).items()})
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
