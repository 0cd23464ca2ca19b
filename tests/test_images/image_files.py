"""Small image files of every kind, and the pixels that they are to become."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
#: EXIF orientation -> the stored pixels of a picture, which it turns upright (EXIF 2.32, 4.6.4.A).
STORED_BY_ORIENTATION = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: np.rot90(upright[::-1], -1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


def orientation_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def save_turned(upright: np.ndarray, orientation: int, path: Path) -> Path:
    """A lossless file that stores a picture turned, as a phone does."""
    stored = np.ascontiguousarray(STORED_BY_ORIENTATION[orientation](upright))
    Image.fromarray(stored).save(path, exif=orientation_exif(orientation))
    return path


def grey(values: np.ndarray) -> np.ndarray:
    return np.stack([values] * 3, axis=-1)


def write_every_kind(root: Path) -> dict[str, np.ndarray]:
    """Files of all modes in `root`, and uint8[16, 16, 3] of each by name."""
    root.mkdir(parents=True, exist_ok=True)
    expected: dict[str, np.ndarray] = {}

    def write(name: str, image: Image.Image, pixels: np.ndarray, **options) -> None:
        image.save(root / name, **options)
        expected[name] = pixels

    colour = Image.fromarray(RGB)
    write('rgb.png', colour, RGB)
    write('grey.png', Image.fromarray(GREY), grey(GREY))
    write('bits.png', Image.fromarray(GREY > 127), grey(np.where(GREY > 127, 255, 0).astype(np.uint8)))
    with_alpha = colour.copy()
    with_alpha.putalpha(Image.fromarray(ALPHA))
    write('rgba.png', with_alpha, RGB)
    write('rgba.tiff', with_alpha, RGB)
    grey_alpha = Image.merge('LA', (Image.fromarray(GREY), Image.fromarray(ALPHA)))
    write('la.png', grey_alpha, grey(GREY))
    write('la.tiff', grey_alpha, grey(GREY))
    palette = colour.quantize(16)
    write('palette.png', palette, np.asarray(palette.convert('RGB')))
    write('palette_transparent.png', palette, np.asarray(palette.convert('RGB')), transparency=bytes(range(0, 256, 16)))
    write('palette.gif', palette, np.asarray(palette.convert('RGB')), transparency=3)
    other = Image.fromarray(255 - RGB)
    write('moving.png', colour, RGB, save_all=True, append_images=[other])
    write('moving.webp', colour, RGB, save_all=True, append_images=[other], lossless=True)
    write('pages.tiff', colour, RGB, save_all=True, append_images=[other])
    for mode in ('CMYK', 'LAB'):
        write(f'{mode}.tiff', colour.convert(mode), np.asarray(colour.convert(mode).convert('RGB')))
    # in a TIFF, Pillow 12.3 does not read the file that it has written
    write('YCbCr.im', colour.convert('YCbCr'), np.asarray(colour.convert('YCbCr').convert('RGB')))
    wide = GREY.astype(np.uint16) * 257
    write('16.png', Image.fromarray(wide), grey(GREY))
    write('16.tiff', Image.fromarray(wide), grey(GREY))
    write('16_big_endian.tiff', Image.fromarray(wide.astype('>u2')), grey(GREY))
    write('16.pgm', Image.fromarray(wide), grey(GREY))
    write('16.jp2', Image.fromarray(wide), grey(GREY), irreversible=False)
    write('float.tiff', Image.fromarray(GREY.astype(np.float32) / 255), grey(GREY))
    write('float.pfm', Image.fromarray(GREY.astype(np.float32) / 255), grey(GREY))
    for orientation in range(1, 9):
        for ending in ('png', 'tiff'):
            name = f'turned_{orientation}.{ending}'
            save_turned(RGB, orientation, root / name)
            expected[name] = RGB
    wide_exif = orientation_exif(6)
    write('16_turned.png', Image.fromarray(np.rot90(wide).copy()), grey(GREY), exif=wide_exif)
    return expected
