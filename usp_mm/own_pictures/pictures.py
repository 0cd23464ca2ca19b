"""Upright RGB copies of a folder's pictures, reduced to the size of the training and split into training and held-out ones."""

import hashlib
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from usp_mm.fileio.atomic import write_folder
from usp_mm.images import load_image

from .scan import Picture, Scan

#: Of each class, this share is held out for the probe and for the picture of restorations.
HELD_OUT = 0.1


def copy_pictures(scan: Scan, out: Path, side: int) -> dict[str, Any]:
    """Write `out`/train/CLASS/NAME.png and `out`/val/CLASS/NAME.png; the folder appears complete or not at all.

    Args:
        scan: The pictures.
        out: A folder that does not exist.
        side: Longest permitted shorter side of a copy, in pixels; a smaller picture keeps its size.

    Returns:
        classes (names in order), train and val (numbers of pictures), broken ({file: error} of what could not be decoded).

    Raises:
        ValueError: Fewer than four pictures, or fewer than two of a class of several, can be decoded.
    """
    broken: dict[str, str] = {}
    with write_folder(out) as folder, ThreadPoolExecutor() as pool:
        whole = folder / 'all'
        copies = pool.map(lambda picture: _copy(scan, picture, whole, side), scan.pictures)
        for picture, error in zip(scan.pictures, tqdm(copies, total=len(scan.pictures), desc='pictures'), strict=False):
            if error is not None:
                broken[picture.path] = error
        kept = [picture for picture in scan.pictures if picture.path not in broken]
        _check(scan, kept, broken)
        held = held_out(kept)
        for picture in kept:
            target = folder / ('val' if picture.path in held else 'train') / scan.name_in_class(picture)
            target.parent.mkdir(parents=True, exist_ok=True)
            (whole / f'{picture.path}.png').rename(target)
        shutil.rmtree(whole)
    return dict(classes=list(scan.classes), train=len(kept) - len(held), val=len(held), broken=broken)


def held_out(pictures: list[Picture]) -> set[str]:
    """The held-out pictures: of each class of two or more, the tenth (at least one) whose names have the smallest hashes."""
    members: dict[int, list[str]] = defaultdict(list)
    for picture in pictures:
        members[picture.label].append(picture.path)
    held: set[str] = set()
    for paths in members.values():
        num = max(1, round(HELD_OUT * len(paths))) if len(paths) > 1 else 0
        held.update(sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())[:num])
    return held


def _copy(scan: Scan, picture: Picture, folder: Path, side: int) -> str | None:
    """Write a picture's copy; return the error if it cannot be decoded."""
    try:
        image = load_image(scan.root / picture.path)
    except ValueError as error:
        return str(error)
    if min(image.size) > side:
        factor = side / min(image.size)
        image = image.resize([round(length * factor) for length in image.size], Image.Resampling.LANCZOS)
    target = folder / f'{picture.path}.png'
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target)
    return None


def _check(scan: Scan, kept: list[Picture], broken: dict[str, str]) -> None:
    missing = set(range(len(scan.classes))) - {picture.label for picture in kept}
    if missing or len(kept) < 4:
        what = f"no picture of class '{scan.classes[min(missing)]}'" if missing else f'only {len(kept)} pictures'
        raise ValueError(f"'{scan.root}': {what} can be decoded, such as: {next(iter(broken.values()))}")
