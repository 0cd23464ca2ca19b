"""Titles around a picture that is made of cells, and names on a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LARGEST, _SMALLEST, _PAD = 20, 9, 4
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def titled(picture: np.ndarray, columns: Sequence[str] = (), rows: Sequence[str] = ()) -> np.ndarray:
    """Put titles above the columns of a picture and labels to the left of its rows, black on white.

    Args:
        picture: uint8[H, W, 3], whose columns are equally wide and whose rows are equally high.
        columns, rows: A text for each, or none at all. Texts are broken between words.

    Returns:
        uint8[H + height of the titles, W + width of the labels, 3]; the picture is its lower right part, unchanged.
    """
    height, width = picture.shape[:2]
    across = width // max(1, len(columns))
    above = [_text(word, across, centred=True) for word in columns]
    beside = [_text(word, max(4 * _LARGEST, height // len(rows)), centred=False) for word in rows]
    top, left = (max((one.shape[axis] for one in texts), default=0) for axis, texts in ((0, above), (1, beside)))
    whole = np.full((top + height, left + width, 3), 255, np.uint8)
    whole[top:, left:] = picture
    for i, one in enumerate(above):
        start = left + i * across + max(0, across - one.shape[1]) // 2
        part = whole[top - one.shape[0] : top, start : start + one.shape[1]]
        part[:] = one[:, : part.shape[1]]
    for i, one in enumerate(beside):
        start = top + i * height // len(rows) + max(0, height // len(rows) - one.shape[0]) // 2
        part = whole[start : start + one.shape[0], left - one.shape[1] : left]
        part[:] = one[: part.shape[0]]
    return whole


def named(picture: np.ndarray, names: Sequence[tuple[str, tuple[int, int]]]) -> np.ndarray:
    """Write names on a picture, white with a black rim, each centred at (x, y) as far as it fits into the picture."""
    image = Image.fromarray(picture)
    draw, (width, height) = ImageDraw.Draw(image), image.size
    font = ImageFont.load_default(max(_SMALLEST + 2, min(width, height) // 20))
    for name, (x, y) in names:
        box = draw.textbbox((0, 0), name, font=font, stroke_width=2)
        half_x, half_y = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
        place = (min(max(x, half_x), max(half_x, width - half_x)), min(max(y, half_y), max(half_y, height - half_y)))
        draw.text(place, name, 'white', font, anchor='mm', stroke_width=2, stroke_fill='black')
    return np.asarray(image)


def _text(text: str, width: int, centred: bool) -> np.ndarray:
    """A text within a width, in a smaller font where its longest word asks for one: uint8[h, w, 3]."""
    measure = ImageDraw.Draw(Image.new('RGB', (1, 1)))
    largest = max(_SMALLEST, min(_LARGEST, width // 8))
    for size in range(largest, _SMALLEST - 1, -1):
        font = ImageFont.load_default(size)
        if max(measure.textlength(word, font) for word in text.split() or ['']) <= width - 2 * _PAD:
            break
    lines = _broken(text, width - 2 * _PAD, font, measure)
    align = 'center' if centred else 'right'
    right = measure.multiline_textbbox((0, 0), lines, font)[2]
    below = measure.multiline_textbbox((0, 0), '\n'.join(['Ag'] * (1 + lines.count('\n'))), font)[3]  # the same for any text
    image = Image.new('RGB', (int(right) + 2 * _PAD, int(below) + 2 * _PAD), 'white')
    ImageDraw.Draw(image).multiline_text((_PAD, _PAD), lines, 'black', font, align=align)
    return np.asarray(image)


def _broken(text: str, width: float, font: _Font, measure: ImageDraw.ImageDraw) -> str:
    lines: list[str] = []
    for word in text.split():
        longer = f'{lines[-1]} {word}' if lines else word
        if lines and measure.textlength(longer, font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return '\n'.join(lines)
