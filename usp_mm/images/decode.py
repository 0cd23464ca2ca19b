"""Decode image files to RGB pixels, in the same way for everything that reads images."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine import fileio
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from .limit import VARIABLE, check_pixels, max_image_pixels

#: What `decode_image` does, as recorded in the plan of a latent cache and in the keys of stored features and statistics.
DECODING = 'RGB, EXIF orientation applied, alpha dropped, 16 bits and floats scaled'

#: EXIF orientation -> the operation that turns the stored pixels upright (PIL.ImageOps.exif_transpose has the same table).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Modes that `Image.convert('RGB')` clips at 255.
_WIDE = ('I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')
#: Modes whose colours are multiplied by alpha -> the modes without this multiplication.
_PREMULTIPLIED = {'La': 'LA', 'RGBa': 'RGBA'}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class _WholeImages:
    """Context in which truncated and too large images are errors; the last thread that leaves it restores Pillow's settings."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._theirs: tuple[bool, int | None] = False, None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                limit = max_image_pixels()
                self._theirs = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS  # other libraries set them
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, limit
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = self._theirs


_WHOLE = _WholeImages()


class Decoded(NamedTuple):
    """An RGB image, whether its EXIF orientation turned it, and whether its values were scaled to 8 bits."""

    image: Image.Image
    turned: bool
    scaled: bool


def load_image(path: str | Path) -> Image.Image:
    """Load the RGB image in a file; see `load_decoded`."""
    return load_decoded(path).image


def load_decoded(path: str | Path, backend_args: dict | None = None) -> Decoded:
    """Load the RGB image in a file, with flags for what was done to its pixels; see `decode_image`.

    Args:
        path: Path or address of the file, for any mmengine file backend.
        backend_args: Arguments of that backend.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file can't be read or decoded.
    """
    try:
        content = fileio.get(str(path), backend_args=backend_args)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read image '{path}': {error}") from error
    return decode_image(content, str(path))


def decode_image(content: bytes, name: str) -> Decoded:
    """Decode the first picture in the bytes of an image file to upright 8-bit RGB.

    The EXIF orientation is applied, alpha is dropped (the colours under it stay, as with `convert('RGB')` in timm and
    torchvision), palettes, grey, CMYK, YCbCr, HSV and LAB become RGB as Pillow converts them, 16-bit grey is divided by 257
    and float grey multiplied by 255. Colour profiles are not applied.

    Args:
        content: Bytes of the file.
        name: Name of the file for error messages.

    Raises:
        ValueError: The file is truncated, is not an image or has more pixels than `max_image_pixels`, or its values are 32-bit
            integers or floats outside [0, 1], whose range is not known.
    """
    with _named(name), _WHOLE:
        image: Image.Image = Image.open(io.BytesIO(content))
        check_pixels(image.size)
        stored = _orientation(image, name)
        image.load()
        left = _orientation(image, name)  # Pillow turns a TIFF itself as it loads it
    scaled = image.mode in _WIDE
    if scaled:
        image = _to_8_bits(image, name)
    with _named(name):
        image = _to_rgb(image)
    if left in _TURNS:
        image = image.transpose(_TURNS[left])
        image.info = {}  # otherwise the next reader of the orientation would turn the image again
    return Decoded(image, stored in _TURNS, scaled)


def check_header(path: Path) -> None:
    """Check that a file is an image of no more pixels than `max_image_pixels`, by its header.

    Raises:
        ValueError: It is none, or has more.
    """
    with _named(str(path)), _WHOLE, Image.open(path) as image:
        check_pixels(image.size)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn all errors in the block into errors that name the file."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"cannot decode image '{name}': {error} Make it smaller, or set {VARIABLE} to its number of pixels to read it"
        ) from error
    except UnidentifiedImageError as error:  # whose text names the buffer
        raise ValueError(f"cannot decode image '{name}': cannot identify its format; replace or delete it") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot decode image '{name}': {reason}; replace or delete it") from error


def _orientation(image: Image.Image, name: str) -> int:
    """The orientation by the EXIF data, or else by XMP; if they are broken, 1 (upright) with a warning."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except OSError:
        raise  # a PNG is decoded up to its EXIF data, which may come last
    except Exception as error:  # what a camera or editor wrote by its own rules
        warnings.warn(f"the EXIF data of '{name}' can't be read ({error}): it is taken to be upright", stacklevel=2)
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == 'RGB':
        return image
    image.info.pop('transparency', None)  # Pillow warns of dropping it
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return image.convert('RGB')


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale a grey image whose values may exceed 255 to 8 bits, by the range of its format."""
    values, tags = np.asarray(image), getattr(image, 'tag_v2', {})
    if image.mode == 'F':
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"image '{name}' holds floats from {low:.4g} to {high:.4g} (mode F), of which only [0, 1] has one meaning: "
                'store it with 8 or 16 bits'
            )
        grey = (values * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    elif image.mode != 'I' or image.format in ('PNG', 'PPM'):  # these hold 16 bits in mode I
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        top = (1 << bits) - 1
        grey = ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    else:
        raise ValueError(
            f"image '{name}' holds 32-bit integers from {values.min()} to {values.max()} (mode I), of unknown range: "
            'store it with 8 or 16 bits'
        )
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey)
