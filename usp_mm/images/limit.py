"""How large a picture may be: one of 13,000 × 13,000 pixels takes half a gigabyte and 10 to 21 s to decode and crop."""

import os

from PIL import Image

#: Environment variable with the largest number of pixels, such as 200000000; 0 for no limit.
VARIABLE = 'USP_MAX_IMAGE_PIXELS'


def max_image_pixels() -> int | None:
    """The largest number of pixels of a picture that is decoded: of `VARIABLE`, else Pillow's; None for no limit.

    Pillow's `Image.MAX_IMAGE_PIXELS` is 89,478,485 unless a program sets it; Pillow itself only warns up to twice that.

    Raises:
        ValueError: The variable does not hold a whole number.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return Image.MAX_IMAGE_PIXELS
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{VARIABLE}='{value}' must be a whole number of pixels, 0 for no limit")
    return int(value) or None


def check_pixels(size: tuple[int, int]) -> None:
    """Check the size of a picture, width and height in pixels.

    Raises:
        ValueError: It has more pixels than `max_image_pixels`.
    """
    limit, pixels = max_image_pixels(), size[0] * size[1]
    if limit is not None and pixels > limit:
        raise ValueError(
            f'{size[0]:,} × {size[1]:,} = {pixels:,} pixels exceed the limit of {limit:,}: make it smaller, or set the '
            f'environment variable {VARIABLE}={pixels} to read it'
        )
