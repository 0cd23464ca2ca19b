"""What an encoder sees of images: attention maps and the principal components of its patch tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from usp_mm.models.attention_maps import block_number, query_title, sight_picture, token_colours


class Sight(NamedTuple):
    """What `look` finds.

    Attributes:
        picture: A row for each image, uint8[height, width, 3], RGB.
        facts: Numbers for a report: blocks, query, shares of the variance, and each head's mean attention to the class token.
    """

    picture: np.ndarray
    facts: dict[str, Any]


def look(
    encoder: Any,
    images: Sequence[str | Path],
    layer: int = -1,
    pca_layer: int | None = None,
    query: str = 'cls',
    batch_size: int = 32,
) -> Sight:
    """Draw what an encoder sees, see `usp_mm.models.attention_maps.sight_picture`.

    Args:
        encoder: An encoder of `usp_mm.from_pretrained`.
        images: Files. The components are those of all of them together.
        layer: Block whose attention is drawn, 1 … depth, or from the end, -1 … -depth.
        pca_layer: Block whose patch tokens are drawn; by default `layer`. After the last block they have the final norm.
        query: 'cls' or 'patches', see `Encoder.attention`.
        batch_size: Number of images that are encoded at a time.

    Raises:
        ValueError: The model is no encoder, a block or query does not exist, or an image cannot be decoded.
    """
    check_encoder(encoder)
    depth = encoder.network.num_layers
    layer = block_number(layer, depth)
    pca_layer = layer if pca_layer is None else block_number(pca_layer, depth)
    pictures = encoder.cropped(images)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    maps = encoder.attention(pixels, layer, query, batch_size)
    tokens = encoder.encode(pixels, pca_layer, pool=None, batch_size=batch_size)[:, 1:]
    colours, shares = token_colours(tokens)
    cells = colours.unflatten(1, maps.shape[2:]).numpy()
    picture = sight_picture(pictures, maps, cells, query_title(query, layer), f'PCA, block {pca_layer}')
    facts = dict(
        layer=layer, pca_layer=pca_layer, query=query, images=[str(path) for path in images], grid=list(maps.shape[2:]),
        pca_variance=shares, to_class_token=(1 - maps.sum((2, 3))).mean(0).tolist(),
    )  # fmt: skip
    return Sight(picture, facts)


def check_encoder(model: Any) -> None:
    """Raise a ValueError unless a model of `usp_mm.from_pretrained` is an encoder."""
    if not hasattr(model, 'encode'):
        raise ValueError(
            f'{model!r} is no encoder: give a pretraining checkpoint or a classifier (usp cka compares generators with one)'
        )
