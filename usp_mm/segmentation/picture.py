"""Pictures of segmentations with names that can be read."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from usp_mm.images import named

#: Share of a picture's pixels from which a class gets its name.
_NAMED = 0.005


def draw_segments(
    image: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: Sequence[Sequence[int]], opacity: float
) -> np.ndarray:
    """Lay the colours of the classes over an image and write each class's name into the largest of its regions.

    Args:
        image: uint8[H, W, 3].
        labels: [H, W], numbers of classes; others, such as 255, get no colour.
        classes: Names of the classes.
        palette: Colours of the classes, RGB in [0, 255].
        opacity: Of the colours, 0 … 1.

    Returns:
        uint8[H, W, 3].
    """
    colours = np.array(palette, dtype=float)
    known = labels < len(classes)
    mixed = image * (1 - opacity) + opacity * colours[np.where(known, labels, 0)]
    overlay = np.where(known[..., None], mixed, image).round().astype(np.uint8)
    present, counts = np.unique(labels[known], return_counts=True)
    large = present[counts >= _NAMED * labels.size]
    return named(overlay, [(str(classes[label]), _inside(labels == label)) for label in large])


def _inside(mask: np.ndarray) -> tuple[int, int]:
    """The point (x, y) of a mask that is farthest from what is outside of it, edges of the picture included."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)
