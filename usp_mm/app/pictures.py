"""Pictures that users upload, and pictures as the demo shows them."""

import math
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, UnidentifiedImageError

from usp_mm.images import decode_image

#: Of an uploaded file, and of the pixels in it.
MAX_FILE, MAX_PIXELS = '30mb', 64_000_000
#: Least side of a shown picture: models of small pictures would otherwise show stamps.
_SHOWN_SIDE = 256
_FORMATS = 'a JPEG, PNG, WebP, TIFF or GIF'


def upload_box() -> gr.Image:
    """A field to drop a picture, whose value is the path of the uploaded file."""
    box = gr.Image(label='Your picture', sources=['upload', 'webcam', 'clipboard'], type='filepath', buttons=[], height=260)
    # Gradio's own would decode the file before our code could say what is wrong with it. A subclass makes it write a .pyi.
    box.preprocess = _path_of  # type: ignore[method-assign,assignment,unused-ignore]
    return box


def _path_of(payload: Any) -> str | None:
    return None if payload is None else payload.path


def read_upload(path: str | None) -> Image.Image:
    """Decode an uploaded file to RGB; of an animation the first frame.

    Raises:
        ValueError: There is no picture, the file is no image or broken, or it has too many pixels.
    """
    if path is None:
        raise ValueError(f'no picture: drop {_FORMATS} into the field first')
    name = Path(path).name
    _check_size(path, name)
    return decode_image(Path(path).read_bytes(), name).image


def _check_size(path: str, name: str) -> None:
    """Refuse by its header what would take long or much memory to decode."""
    limit = f'the demo takes up to {MAX_PIXELS // 10**6} million: make it smaller'
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise ValueError(f"'{name}' has too many pixels: {limit}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"'{name}' is not an image, whatever its name says: choose {_FORMATS}") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"'{name}' has {width} x {height} pixels: {limit}")


def result_box(label: str, **options: Any) -> gr.Image:
    """A field that shows a picture of the model."""
    defaults: dict[str, Any] = dict(interactive=False, format='png', buttons=['download', 'fullscreen'], min_width=150)
    return gr.Image(label=label, elem_classes='result', **(defaults | options))


def enlarged(image: Image.Image) -> Image.Image:
    """A small picture enlarged by a whole factor, to at least 256 pixels."""
    factor = math.ceil(_SHOWN_SIDE / max(image.size))
    return image if factor == 1 else image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
