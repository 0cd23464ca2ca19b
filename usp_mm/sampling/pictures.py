"""Draw samples as a grid and as an animated grid.

Shape legend: n pictures of a row, H×W pixels, RGB.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from usp_mm.fileio.atomic import write_whole

_GAP, _WHITE = 2, 255
_FRAME_SECONDS, _LAST_FRAME_SECONDS = 0.1, 1.5


def draw_grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Arrange rows of pictures, uint8[n, H, W, 3] each, as one picture uint8[rows, columns, 3]; short rows end in white."""
    columns = max(map(len, rows))
    missing = [((0, columns - len(row)), (0, 0), (0, 0), (0, 0)) for row in rows]
    filled = [np.pad(row, pad, constant_values=_WHITE) for row, pad in zip(rows, missing, strict=True)]
    cells = torch.from_numpy(np.concatenate(filled)).permute(0, 3, 1, 2)
    return make_grid(cells, nrow=columns, padding=_GAP, pad_value=_WHITE).permute(1, 2, 0).numpy()


def check_picture_path(path: Path, suffixes: Sequence[str]) -> None:
    """Raise ValueError if `path` has another suffix or the library to write it is missing."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"'{path}' must end in {' or '.join(suffixes)}")
    if path.suffix.lower() == '.mp4':
        _movie_writer()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8[rows, columns, 3] as PNG."""
    with write_whole(path) as file:
        Image.fromarray(picture).save(file, format='PNG')


def write_animation(path: Path, frames: Sequence[np.ndarray]) -> None:
    """Write pictures of one size, uint8[rows, columns, 3], as an animation that pauses on the last one.

    Args:
        path: File that ends in .gif (256 colours per frame) or .mp4.
        frames: The pictures.

    Raises:
        ValueError: The suffix is another one, or imageio or PyAV is missing for an MP4.
    """
    check_picture_path(path, ('.gif', '.mp4'))
    encode = _encode_mp4 if path.suffix.lower() == '.mp4' else _encode_gif
    content = encode(frames)
    with write_whole(path) as file:
        file.write(content)


def _encode_gif(frames: Sequence[np.ndarray]) -> bytes:
    first, *others = [Image.fromarray(frame).quantize(dither=Image.Dither.NONE) for frame in frames]
    milliseconds = [round(1000 * _FRAME_SECONDS)] * len(others) + [round(1000 * _LAST_FRAME_SECONDS)]
    out = io.BytesIO()
    first.save(out, format='GIF', save_all=True, append_images=others, duration=milliseconds, loop=0)
    return out.getvalue()


def _encode_mp4(frames: Sequence[np.ndarray]) -> bytes:
    rest = [frames[-1]] * (round(_LAST_FRAME_SECONDS / _FRAME_SECONDS) - 1)
    even = [((0, side % 2)) for side in frames[0].shape[:2]]  # the 4:2:0 pixel format needs even sides
    movie = np.stack([np.pad(frame, (*even, (0, 0)), mode='edge') for frame in [*frames, *rest]])
    return _movie_writer()('<bytes>', movie, extension='.mp4', plugin='pyav', codec='libx264', fps=round(1 / _FRAME_SECONDS))


def _movie_writer() -> Callable[..., bytes]:
    try:
        import av  # noqa: F401
        from imageio.v3 import imwrite
    except ImportError as error:
        raise ValueError(f'an .mp4 needs imageio and PyAV ({error}): pip install imageio av, or write a .gif') from error
    return imwrite
