"""Pictures of what an encoder sees: attention maps, and patch tokens as colours.

Shape legend: N images, H heads, h×w patches, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from usp_mm.functional.pca import as_colours, principal_components
from usp_mm.images import titled

from .usp_vit import USPViT

#: Whose attention is drawn.
QUERIES = ('cls', 'patches')
_COLOURS, _GAP = 'viridis', 2
#: Least side of a cell in pixels, so that its title can be read.
_CELL = 128


def block_number(layer: int, depth: int) -> int:
    """Number 1 … depth of a block that may be counted from the end, -1 … -depth; ValueError if there is none."""
    if isinstance(layer, bool) or not isinstance(layer, int) or not (1 <= layer <= depth or -depth <= layer <= -1):
        raise ValueError(f'layer {layer} is not there: the model has blocks 1 to {depth}, or from the end -1 to -{depth}')
    return layer if layer > 0 else depth + 1 + layer


@torch.no_grad()
def attention_maps(network: USPViT, latents: Tensor, layer: int, query: str = 'cls') -> Tensor:
    """Attention of one block to the patches.

    Args:
        network: Encoder; put it into evaluation mode first.
        latents: Scaled latents, float[N, C, h·patch, w·patch].
        layer: Number of the block, 1 … depth.
        query: 'cls' for the class token's attention, 'patches' for the mean over the patch tokens'.

    Returns:
        float32[N, H, h, w] in [0, 1].

    Raises:
        ValueError: A block or query does not exist.
    """
    if query not in QUERIES:
        raise ValueError(f'query={query!r} must be one of {QUERIES}')
    weights, grid = network.attention_weights(latents, layer)
    rows = weights[:, :, 0] if query == 'cls' else weights[:, :, 1:].mean(2)
    return rows[..., 1:].unflatten(-1, grid)


def token_colours(tokens: Tensor) -> tuple[Tensor, list[float]]:
    """First three principal components of the patch tokens of all images as red, green and blue (DINOv2, arXiv 2304.07193).

    Args:
        tokens: Patch tokens, float[N, h·w, D].

    Returns:
        uint8[N, h·w, 3], and the components' shares of the whole variance.

    Raises:
        ValueError: See `usp_mm.functional.pca.principal_components`.
    """
    projected, shares = principal_components(tokens.flatten(0, 1), 3)
    return as_colours(projected).unflatten(0, tokens.shape[:2]), [float(share) for share in shares]


def sight_picture(
    pictures: np.ndarray, maps: np.ndarray, colours: np.ndarray, attention_of: str, tokens_of: str, first: str = 'image'
) -> np.ndarray:
    """Draw a row for each image: the image, the mean attention map, the map of each head, and the tokens' colours.

    Each map is drawn from dark blue (0) to yellow (its own largest value). Patches are enlarged without smoothing.

    Args:
        pictures: uint8[N, S, S, 3], RGB.
        maps: float[N, H, h, w], 0 or more.
        colours: uint8[N, h, w, 3].
        attention_of, tokens_of, first: What the titles call the attention, the tokens, and the first column.

    Returns:
        RGB picture with titles, uint8[height, width, 3].
    """
    side = pictures.shape[1] * -(-_CELL // pictures.shape[1])  # a whole multiple of the image's side
    heads = maps.shape[1]
    columns = [pictures, *(_coloured(one) for one in [maps.mean(1), *np.moveaxis(maps, 1, 0)]), colours]
    titles = [first, f'{attention_of}, mean', *(f'head {i}' for i in range(1, heads + 1)), tokens_of]
    framed = [np.pad(_enlarged(one, side), [(0, 0), (_GAP,) * 2, (_GAP,) * 2, (0, 0)], constant_values=255) for one in columns]
    rows = np.concatenate(framed, axis=2)
    return titled(rows.reshape(-1, *rows.shape[2:]), titles)


def _coloured(maps: np.ndarray) -> np.ndarray:
    """float[N, h, w] -> uint8[N, h, w, 3], each map scaled to its largest value."""
    largest = maps.max(axis=(1, 2), keepdims=True)
    return colormaps[_COLOURS](maps / np.maximum(largest, np.finfo(np.float32).tiny), bytes=True)[..., :3]


def _enlarged(cells: np.ndarray, side: int) -> np.ndarray:
    """Repeat pixels until a cell has `side`: uint8[N, h, w, 3] -> uint8[N, side, side, 3]."""
    rows, columns = (np.arange(side) * size // side for size in cells.shape[1:3])
    return cells[:, rows][:, :, columns]


def query_title(query: str, layer: int) -> str:
    """What a picture's title calls the attention of a block."""
    return f'{"class token" if query == "cls" else "patches"}, block {layer}'


def evenly(num: int, count: int) -> Sequence[int]:
    """`count` numbers, evenly spaced over 0 … num - 1; all of them if there are no more."""
    count = min(num, count)
    return [i * num // count for i in range(count)]
