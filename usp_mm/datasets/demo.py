"""Real handwritten digits in the layouts of ImageNet and ADE20K: data for a first run in minutes, without a download.

The digits are scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test set: 1,797 images of 8×8
pixels with 16 grey levels. The output depends only on the arguments, byte for byte.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger
from PIL import Image
from tqdm import tqdm

from usp_mm.config.options import DemoData
from usp_mm.fileio.atomic import write_folder

MANIFEST = 'demo.json'
#: Classes of the scenes. As in ADE20K, labels count from 1, and 0 belongs to no class (`reduce_zero_label`).
SCENE_CLASSES = (*(str(digit) for digit in range(10)), 'canvas')


def make_demo_data(out: str | Path, config: DemoData = DemoData()) -> bool:
    """Write `out`/imagenet/{train,val}/<class>/<id>.png and `out`/ade20k/{images,annotations}/{training,validation}/.

    Digits are white on black, RGB. Scenes are RGB JPEGs of digits in colour on a textured canvas; their label maps hold
    1 … 10 for digits 0 … 9, 11 for canvas, and 0, which `reduce_zero_label` turns into ignored, for the soft edge between.
    The folder appears complete or not at all.

    Args:
        out: A folder that doesn't exist, is empty, or holds exactly this data.
        config: Numbers and sizes of the images.

    Returns:
        True if the data were written, False if they already existed.

    Raises:
        FileExistsError: `out` holds something else.
        ValueError: More digits are requested than exist.
        ModuleNotFoundError: scikit-learn isn't installed.
    """
    out, logger = Path(out), MMLogger.get_current_instance()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        check_identical(out, config)
        logger.info(f'{out}: already there, complete and unchanged')
        return False
    images, labels, splits = _load_digits(config)
    with write_folder(out) as folder:
        total = sum(len(split) for split in splits) + config.train_scenes + config.val_scenes
        with tqdm(total=total, desc='demo data', unit='image', leave=False) as progress:
            for name, scenes, split in zip(('train', 'val'), ('training', 'validation'), splits, strict=True):
                _write_digits(folder / 'imagenet' / name, images, labels, split, config, progress)
                _write_scenes(folder / 'ade20k', scenes, images[split], labels[split], config, progress)
        manifest = {'config': asdict(config), 'scene_classes': SCENE_CLASSES, 'sha256': folder_digest(folder)}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n')
    logger.info(f'{out}: {len(splits[0])} + {len(splits[1])} digits, {config.train_scenes} + {config.val_scenes} scenes')
    return True


def check_identical(out: Path, config: Any) -> None:
    """Raise a FileExistsError unless `out` holds exactly the demo data for `config`, a dataclass."""
    fix = 'choose another folder or remove this one'
    manifest = out / MANIFEST
    if not manifest.is_file():
        raise FileExistsError(f'{out} exists and is not demo data (no {MANIFEST}): {fix}')
    recorded = json.loads(manifest.read_text())
    if recorded['config'] != asdict(config):
        raise FileExistsError(f'{out} holds demo data of {recorded["config"]}, asked for {asdict(config)}: {fix}')
    if recorded['sha256'] != folder_digest(out):
        raise FileExistsError(f'{out} holds demo data whose files were changed, added or removed: {fix}')


def folder_digest(folder: Path) -> str:
    """SHA-256 over the sorted paths and the contents of all files in a folder except its manifest."""
    content = hashlib.sha256()
    for path in sorted(path for path in folder.rglob('*') if path.is_file() and path != folder / MANIFEST):
        content.update(path.relative_to(folder).as_posix().encode() + b'\0')
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


def _load_digits(config: DemoData) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """uint8[1797, S, S] upscaled digits, their classes, and the indices of the two splits."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('the demo data are the digits of scikit-learn: `pip install scikit-learn`') from error
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    side = (config.digit_size, config.digit_size)
    images = np.stack([np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BICUBIC)) for image in grey])
    return images, digits.target, split_digits(digits.target, config)


def split_digits(labels: np.ndarray, config: DemoData) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint indices for training and validation, each with the classes in proportion.

    Raises:
        ValueError: More digits are requested than exist.
    """
    if config.train_digits + config.val_digits > len(labels) or min(config.train_digits, config.val_digits) < 1:
        raise ValueError(
            f'train_digits={config.train_digits} and val_digits={config.val_digits} must be at least 1 each '
            f'and {len(labels)} together at most'
        )
    order = np.random.RandomState(config.seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind='stable')]  # by class, in random order within
    val = _evenly(order, config.val_digits)
    rest = order[~np.isin(order, val)]
    return _evenly(rest, config.train_digits), val


def _evenly(order: np.ndarray, num: int) -> np.ndarray:
    """Select `num` evenly spaced entries."""
    return order[np.arange(num) * len(order) // num]


def _write_digits(
    folder: Path, images: np.ndarray, labels: np.ndarray, split: np.ndarray, config: DemoData, progress: tqdm
) -> None:
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
    for i in split:
        Image.fromarray(images[i]).convert('RGB').save(folder / str(labels[i]) / f'{i:04d}.png')
        progress.update()


def _write_scenes(root: Path, split: str, images: np.ndarray, labels: np.ndarray, config: DemoData, progress: tqdm) -> None:
    folders = root / 'images' / split, root / 'annotations' / split
    for folder in folders:
        folder.mkdir(parents=True)
    num = config.train_scenes if split == 'training' else config.val_scenes
    for i in range(num):
        rng = np.random.RandomState([config.seed, split == 'validation', i])
        scene, label = draw_scene(rng, images, labels, config.scene_size)
        Image.fromarray(scene).save(folders[0] / f'{split}_{i:04d}.jpg', quality=95, subsampling=0)
        Image.fromarray(label).save(folders[1] / f'{split}_{i:04d}.png')
        progress.update()


def draw_scene(rng: np.random.RandomState, images: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to 4 digits that do not overlap, each at least two fifths of the side wide, on a dark canvas.

    Args:
        rng: Source of all random numbers.
        images, labels: The digits to choose from, uint8[N, S, S], and their classes, int[N].
        size: Side of the scene in pixels.

    Returns:
        uint8[size, size, 3] image and uint8[size, size] label map: digit + 1, 11 canvas, 0 neither.
    """
    scene, label = draw_canvas(rng, size), np.full((size, size), 11, np.uint8)
    taken = np.zeros((size, size), bool)
    for _ in range(rng.randint(2, 5)):
        i, side = rng.randint(len(images)), int(size * rng.uniform(0.4, 0.55))
        ink = Image.fromarray(images[i]).resize((side, side), Image.Resampling.BICUBIC)
        alpha = np.asarray(ink, np.float64) / 255
        colour = rng.uniform(200, 255, 3)
        for _ in range(20):  # attempts to find a free place
            y, x = rng.randint(0, size - side, 2)
            window = slice(y, y + side), slice(x, x + side)
            if not taken[window].any():
                taken[window] = True
                scene[window] += alpha[..., None] * (colour - scene[window])
                label[window] = np.select([alpha > 0.4, alpha > 0.1], [labels[i] + 1, 0], 11)
                break
    return np.rint(scene).clip(0, 255).astype(np.uint8), label


def draw_canvas(rng: np.random.RandomState, size: int) -> np.ndarray:
    """A dark colour with blotches and stripes, float64[size, size, 3]."""
    blotches = Image.fromarray(rng.uniform(0, 255, (6, 6, 3)).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    y, x = np.mgrid[:size, :size] / size
    angle, waves = rng.uniform(0, np.pi), rng.uniform(4, 12)
    stripes = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)))
    return rng.uniform(4, 14, 3) + np.asarray(blotches) * 0.04 + 2 * stripes[..., None]
