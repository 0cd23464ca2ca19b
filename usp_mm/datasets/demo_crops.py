"""Crops of real colour photographs in ImageNet's layout: natural images for a first run, without a download.

The photographs are part of the packages scikit-image and scikit-learn. The output is a function of the arguments and of
these files alone, byte for byte.
"""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from PIL import Image
from tqdm import tqdm

from usp_mm.config.options import DemoCrops
from usp_mm.fileio.atomic import sha256, write_folder

from .demo import MANIFEST, check_identical, folder_digest

#: Class -> (package, file) of its photograph.
PHOTOGRAPHS = {
    'astronaut': ('skimage', 'data/astronaut.png'),
    'cat': ('skimage', 'data/chelsea.png'),
    'coffee': ('skimage', 'data/coffee.png'),
    'flower': ('sklearn', 'datasets/images/flower.jpg'),
    'galaxies': ('skimage', 'data/hubble_deep_field.jpg'),
    'motorcycle': ('skimage', 'data/motorcycle_left.png'),
    'retina': ('skimage', 'data/retina.jpg'),
    'rocket': ('skimage', 'data/rocket.jpg'),
    'temple': ('sklearn', 'datasets/images/china.jpg'),
    'tissue': ('skimage', 'data/ihc.png'),
}
DISTRIBUTIONS = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}
#: Share of a photograph's width, at its right side, that is reserved for validation crops.
HELD_OUT = 0.3
#: A crop is taken at 1 to this many times its final size, and then reduced.
MAX_ZOOM = 2.0


def make_demo_crops(out: str | Path, config: DemoCrops = DemoCrops()) -> bool:
    """Write `out`/imagenet/{train,val}/<photograph>/<number>.png, RGB, at places and zooms drawn uniformly.

    Training and validation crops show no common pixel: the right-hand 30 % of each photograph are held out. The folder
    appears complete or not at all.

    Args:
        out: A folder that doesn't exist, is empty, or holds exactly this data.
        config: Numbers and size of the crops.

    Returns:
        True if the data were written, False if they already existed.

    Raises:
        FileExistsError: `out` holds something else.
        ValueError: A number of crops is below 1, or the side is outside 16 … 128.
        ModuleNotFoundError: scikit-image or scikit-learn isn't installed.
        FileNotFoundError: An installed package lacks its photographs.
    """
    out, logger = Path(out), MMLogger.get_current_instance()
    if min(config.train_crops, config.val_crops) < 1:
        raise ValueError(f'train_crops={config.train_crops} and val_crops={config.val_crops} must be at least 1 each')
    if not 16 <= config.crop_size <= 128:
        raise ValueError(f'crop_size={config.crop_size} must be from 16 to 128: the photographs are small')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        check_identical(out, config)
        logger.info(f'{out}: already there, complete and unchanged')
        return False
    files = {name: photograph(name) for name in PHOTOGRAPHS}
    numbers = {'train': config.train_crops, 'val': config.val_crops}
    with write_folder(out) as folder:
        with tqdm(total=len(files) * sum(numbers.values()), desc='demo crops', unit='image', leave=False) as progress:
            for index, (name, file) in enumerate(files.items()):
                with Image.open(file) as image:
                    pixels = np.asarray(image.convert('RGB'))
                for split, region in zip(numbers, split_regions(pixels), strict=True):
                    rng = np.random.RandomState([config.seed, split == 'val', index])
                    _write_crops(folder / 'imagenet' / split / name, region, numbers[split], config.crop_size, rng, progress)
        sources = {name: dict(file='/'.join(PHOTOGRAPHS[name]), sha256=sha256(file)) for name, file in files.items()}
        manifest = {'config': asdict(config), 'photographs': sources, 'sha256': folder_digest(folder)}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n')
    logger.info(f'{out}: {numbers["train"]} + {numbers["val"]} crops of each of {len(files)} photographs')
    return True


def photograph(name: str) -> Path:
    """The file of one of `PHOTOGRAPHS`.

    Raises:
        ModuleNotFoundError: The package of the photograph isn't installed.
        FileNotFoundError: The installed package lacks this file.
    """
    package, file = PHOTOGRAPHS[name]
    distribution = DISTRIBUTIONS[package]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the photograph '{name}' of the demo crops is one of {distribution}'s: `pip install {distribution}`"
        )
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install {distribution}'s wheel, which has it, in place of this build")
    return path


def split_regions(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a photograph uint8[H, W, 3] into its left part, for training, and its right part, for validation, as views."""
    border = round(pixels.shape[1] * (1 - HELD_OUT))
    return pixels[:, :border], pixels[:, border:]


def _write_crops(folder: Path, region: np.ndarray, num: int, size: int, rng: np.random.RandomState, progress: tqdm) -> None:
    folder.mkdir(parents=True)
    largest = min(int(size * MAX_ZOOM), *region.shape[:2])
    for i in range(num):
        side = rng.randint(size, largest + 1)
        y, x = (rng.randint(0, room - side + 1) for room in region.shape[:2])
        crop = Image.fromarray(region[y : y + side, x : x + side])
        crop.resize((size, size), Image.Resampling.LANCZOS).save(folder / f'{i:04d}.png')
        progress.update()
