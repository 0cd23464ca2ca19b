"""The demo crops of photographs."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.small_world import run_tool
from PIL import Image

from usp_mm.datasets.demo import DemoData, make_demo_data
from usp_mm.datasets.demo_crops import PHOTOGRAPHS, DemoCrops, make_demo_crops, photograph, split_regions

SMALL = DemoCrops(train_crops=6, val_crops=3, crop_size=32)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('crops') / 'demo'
    assert make_demo_crops(folder, SMALL)
    return folder


def test_layout(crops: Path) -> None:
    for split, num in (('train', 6), ('val', 3)):
        counts = Counter(path.parent.name for path in (crops / 'imagenet' / split).glob('*/*.png'))
        assert counts == dict.fromkeys(PHOTOGRAPHS, num)
    for path in (crops / 'imagenet').rglob('*.png'):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ('RGB', (32, 32))
    manifest = json.loads((crops / 'demo.json').read_text())
    assert manifest['config'] == dict(train_crops=6, val_crops=3, crop_size=32, seed=0)
    assert manifest['photographs'].keys() == PHOTOGRAPHS.keys()
    assert manifest['photographs']['cat']['file'] == 'skimage/data/chelsea.png'


def test_the_regions_of_the_splits_share_no_pixel() -> None:
    pixels = np.arange(40 * 100).reshape(40, 100, 1)
    train, val = split_regions(pixels)
    assert (train.shape, val.shape) == ((40, 70, 1), (40, 30, 1))
    assert train.max(axis=(0, 2)).tolist()[-1] % 100 == 69 and val.min() == 70
    assert not set(train.ravel()) & set(val.ravel())


@pytest.mark.parametrize('name', PHOTOGRAPHS)
def test_every_photograph_holds_the_largest_crop(name: str) -> None:
    with Image.open(photograph(name)) as image:
        assert image.mode == 'RGB'
        train, val = split_regions(np.asarray(image))
    assert min(*train.shape[:2], *val.shape[:2]) >= 128


def test_validation_crops_come_from_the_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.zeros((60, 200, 3), np.uint8)
    source[:, :140] = (200, 0, 0)
    source[:, 140:] = (0, 0, 200)
    Image.fromarray(source).save(tmp_path / 'two-colours.png')
    monkeypatch.setattr('usp_mm.datasets.demo_crops.photograph', lambda name: tmp_path / 'two-colours.png')
    make_demo_crops(tmp_path / 'demo', SMALL)
    for split, colour in (('train', (200, 0, 0)), ('val', (0, 0, 200))):
        paths = list((tmp_path / 'demo' / 'imagenet' / split).rglob('*.png'))
        assert len(paths) == 10 * getattr(SMALL, f'{split}_crops')
        assert all((np.asarray(Image.open(path)) == colour).all() for path in paths)


def test_crops_differ_in_place_and_zoom(crops: Path) -> None:
    for name in ('cat', 'tissue'):  # nothing plain in them
        assert len({path.read_bytes() for path in crops.glob(f'imagenet/*/{name}/*.png')}) == 9
    with Image.open(photograph('temple')) as image:
        train, _ = split_regions(np.asarray(image, float))
    whole = [np.asarray(Image.open(path), float) for path in sorted((crops / 'imagenet/train/temple').iterdir())]
    spread = np.std([crop.mean() for crop in whole])
    assert abs(np.mean(whole) - train.mean()) < 40 and spread > 10


def test_same_bytes_every_time(tmp_path: Path, crops: Path) -> None:
    make_demo_crops(tmp_path / 'again', SMALL)
    assert contents(tmp_path / 'again') == contents(crops)
    make_demo_crops(tmp_path / 'other', DemoCrops(**{**vars(SMALL), 'seed': 1}))
    other = contents(tmp_path / 'other')
    assert other.keys() == contents(crops).keys()
    assert not {name for name, content in contents(crops).items() if content == other[name]}


def test_what_is_there_stays(tmp_path: Path, crops: Path) -> None:
    before = contents(crops)
    assert make_demo_crops(crops, SMALL) is False
    with pytest.raises(FileExistsError, match=r"holds demo data of .*'train_crops': 6.*asked for .*'train_crops': 400"):
        make_demo_crops(crops, DemoCrops())
    with pytest.raises(FileExistsError, match=r"'train_crops': 6.*asked for .*'train_digits': 1500"):
        make_demo_data(crops, DemoData())
    assert contents(crops) == before
    make_demo_crops(tmp_path / 'demo', SMALL)
    next((tmp_path / 'demo').rglob('*.png')).unlink()
    with pytest.raises(FileExistsError, match='were changed, added or removed'):
        make_demo_crops(tmp_path / 'demo', SMALL)


@pytest.mark.parametrize(
    ('numbers', 'message'),
    [
        (dict(train_crops=0), 'train_crops=0 and val_crops=3 must be at least 1 each'),
        (dict(crop_size=256), 'crop_size=256 must be from 16 to 128'),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_demo_crops(tmp_path / 'demo', DemoCrops(**{**vars(SMALL), **numbers}))
    assert not list(tmp_path.iterdir())


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'skimage' else found(name))
    with pytest.raises(ModuleNotFoundError, match='`pip install scikit-image`'):
        make_demo_crops(tmp_path / 'demo', SMALL)
    monkeypatch.setattr(importlib.util, 'find_spec', found)
    monkeypatch.setitem(PHOTOGRAPHS, 'cat', ('skimage', 'data/dog.png'))
    with pytest.raises(FileNotFoundError, match=r"dog\.png is missing: install scikit-image's wheel"):
        make_demo_crops(tmp_path / 'demo', SMALL)
    assert not list(tmp_path.iterdir())


def test_tool(tmp_path: Path, crops: Path) -> None:
    numbers = ['--train-crops', 6, '--val-crops', 3, '--crop-size', 32]
    done = run_tool('tools/make_demo_data.py', tmp_path / 'demo', '--kind', 'crops', *numbers)
    assert done.stdout.endswith(f'{tmp_path}/demo: written\n'), done.stderr
    assert contents(tmp_path / 'demo') == contents(crops)
    foreign = run_tool('tools/make_demo_data.py', tmp_path / 'other', '--kind', 'crops', '--train-digits', 5)
    assert foreign.returncode == 2 and '--train-digits is not an option of --kind crops' in foreign.stderr
