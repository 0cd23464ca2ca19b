"""Pictures of masked latent modelling (USP, Figures 5 and 6)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from torch import Tensor

from usp_mm.images import titled

from .data_preprocessor import LatentDataPreprocessor
from .usp import USP

COMPOSITES = ('predicted', 'visible')
_GAP = 2
_HIDDEN = 0.0  # mid-grey in [-1, 1]


def titled_restoration(
    model: USP, samples: Sequence[dict], composite: str = 'predicted', denormalize: bool = True
) -> np.ndarray:
    """Draw `restoration_picture` with the titles of its columns, which say whose picture the first one is."""
    picture = restoration_picture(model, samples, composite, denormalize)
    codec = model.data_preprocessor.codec
    from_images = codec.kind_of(torch.stack([sample['inputs'] for sample in samples])) == 'image'
    return titled(picture, column_titles(from_images, codec.stride > 1))


def column_titles(from_images: bool, with_vae: bool) -> list[str]:
    """Titles of the columns of `restoration_picture`: a cache has no original, but what the VAE makes of it."""
    first = 'original' if from_images else 'VAE of the original'
    return [first, 'masked', 'restored', *(['VAE alone'] if with_vae else [])]


@torch.no_grad()
def restoration_picture(
    model: USP, samples: Sequence[dict], composite: str = 'predicted', denormalize: bool = True
) -> np.ndarray:
    """Picture with a row per sample: original, masked, restored, and (with a VAE) the decoded true latent.

    Args:
        model: A `USP` algorithm; its training mode is restored afterwards.
        samples: Items of a data set, dict(inputs, data_samples), with images or cached latents.
        composite: 'predicted' decodes the predicted latents everywhere (the official picture for a VAE); 'visible' keeps the
            true latents where they were visible (the picture of MAE on pixels).
        denormalize: See `USP.reconstruct`.

    Returns:
        RGB image, uint8[height, width, 3].

    Raises:
        ValueError: `composite` is unknown.
    """
    if composite not in COMPOSITES:
        raise ValueError(f"composite='{composite}' must be one of {COMPOSITES}")
    was_training = model.training
    model.eval()
    data = model.data_preprocessor(default_collate(list(samples)), training=False)
    latents = data['inputs']
    restored, mask = model.reconstruct(latents, data['data_samples'], denormalize)
    if composite == 'visible':
        hidden = F.interpolate(mask, size=latents.shape[-2:], mode='nearest')
        restored = hidden * restored + (1 - hidden) * latents
    model.train(was_training)

    codec = model.data_preprocessor.codec.to(latents.device)
    decoded = codec.decode(latents)
    original = original_images(samples, model.data_preprocessor, decoded)
    hidden = F.interpolate(mask, size=original.shape[-2:], mode='nearest')
    masked = (1 - hidden) * original + hidden * _HIDDEN
    columns = [original, masked, codec.decode(restored)]
    if codec.stride > 1:
        columns.append(decoded)
    return _tile(columns, model.data_preprocessor)


def original_images(samples: Sequence[dict], preprocessor: LatentDataPreprocessor, decoded: Tensor) -> Tensor:
    """The images as the VAE saw them, or the decoded latents where only latents are stored."""
    inputs = torch.stack([sample['inputs'] for sample in samples]).to(decoded.device)
    return preprocessor.normalize(inputs) if preprocessor.codec.kind_of(inputs) == 'image' else decoded


def _tile(columns: list[Tensor], preprocessor: LatentDataPreprocessor) -> np.ndarray:
    """Normalised images [N, 3, H, W], one list entry per column -> the whole picture, uint8[height, width, 3]."""
    pixels = [(column * preprocessor.std + preprocessor.mean).clamp(0, 255) for column in columns]
    framed = [F.pad(p, (_GAP, _GAP, _GAP, _GAP), value=255.0) for p in pixels]
    grid = torch.cat([torch.cat(list(p), dim=1) for p in framed], dim=2)
    return grid.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
