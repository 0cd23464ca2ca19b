"""The demo data."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from usp_mm.datasets.demo import SCENE_CLASSES, DemoData, draw_scene, make_demo_data, split_digits

ROOT = Path(__file__).parents[2]
SMALL = DemoData(train_digits=20, val_digits=10, train_scenes=2, val_scenes=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_layout(demo_data: Path) -> None:
    for split, num in (('train', 40), ('val', 20)):
        counts = Counter(path.parent.name for path in (demo_data / 'imagenet' / split).glob('*/*.png'))
        assert counts.total() == num
        assert {str(digit) for digit in range(10)} == set(counts)
        assert max(counts.values()) - min(counts.values()) <= 2
    for split, num in (('training', 6), ('validation', 4)):
        images = sorted(path.stem for path in (demo_data / 'ade20k/images' / split).glob('*.jpg'))
        assert images == sorted(path.stem for path in (demo_data / 'ade20k/annotations' / split).glob('*.png'))
        assert len(images) == num
    manifest = json.loads((demo_data / 'demo.json').read_text())
    assert manifest['config']['train_digits'] == 40
    assert tuple(manifest['scene_classes']) == SCENE_CLASSES


def test_images_are_the_digits(demo_data: Path) -> None:
    digits = load_digits()
    paths = sorted((demo_data / 'imagenet').glob('*/*/*.png'))
    assert len(paths) == 60
    for path in paths:
        image = Image.open(path)
        assert (image.mode, image.size) == ('RGB', (64, 64))
        pixels, index = np.asarray(image, float), int(path.stem)
        assert digits.target[index] == int(path.parent.name)
        small = np.asarray(image.convert('L').resize((8, 8), Image.Resampling.BOX), float)
        assert np.corrcoef(small.ravel(), digits.images[index].ravel())[0, 1] > 0.97
        assert pixels.min() == 0
        assert pixels.max() > 230


def test_full_split_is_disjoint_and_even() -> None:
    labels = load_digits().target
    train, val = split_digits(labels, DemoData())
    assert (len(set(train)), len(set(val))) == (1500, 297)
    assert not set(train) & set(val)
    share = np.bincount(labels[val]) / np.bincount(labels)
    np.testing.assert_allclose(share, 297 / 1797, atol=0.01)
    assert not np.array_equal(split_digits(labels, DemoData(seed=1))[1], val)


def test_label_maps_fit_the_scenes(demo_data: Path) -> None:
    seen: Counter[int] = Counter()
    for path in (demo_data / 'ade20k/annotations').glob('*/*.png'):
        label = np.asarray(Image.open(path))
        image = np.asarray(Image.open(str(path).replace('annotations', 'images').replace('.png', '.jpg')), float)
        assert image.shape == (*label.shape, 3) == (128, 128, 3)
        is_digit = (label >= 1) & (label <= 10)
        assert image[is_digit].mean() > image[label == 11].mean() + 30
        seen.update(label.ravel().tolist())
    assert set(seen) <= set(range(12))
    assert 0.6 < seen[11] / seen.total() < 0.9
    assert 0.02 < seen[0] / seen.total() < 0.15


def test_a_scene_shows_the_digits_it_is_given() -> None:
    images = np.full((1, 16, 16), 255, np.uint8)
    scene, label = draw_scene(np.random.RandomState(0), images, np.array([7]), 64)
    assert set(np.unique(label)) == {8, 11}
    assert scene[label == 8].min() >= 149
    assert scene[label == 11].max() < 149


def test_same_bytes_every_time(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ('first', 'again', 'other'))
    assert make_demo_data(first, SMALL)
    again.mkdir()
    assert make_demo_data(again, SMALL)
    assert contents(first) == contents(again)
    make_demo_data(other, DemoData(train_digits=20, val_digits=10, train_scenes=2, val_scenes=1, seed=1))
    assert contents(first).keys() != contents(other).keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['again', 'first', 'other']


def test_what_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / 'demo'
    make_demo_data(out, SMALL)
    before = contents(out)
    assert make_demo_data(out, SMALL) is False
    with pytest.raises(FileExistsError, match=r"holds demo data of .*'train_digits': 20.*asked for .*'train_digits': 1500"):
        make_demo_data(out, DemoData())
    assert contents(out) == before
    next(out.glob('imagenet/val/*/*.png')).unlink()
    with pytest.raises(FileExistsError, match='were changed, added or removed: choose another folder or remove'):
        make_demo_data(out, SMALL)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('text')
    with pytest.raises(FileExistsError, match='is not demo data'):
        make_demo_data(tmp_path / 'mine', SMALL)
    assert contents(tmp_path / 'mine') == {'thesis.txt': b'text'}


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('usp_mm.datasets.demo._write_scenes', fail)
    with pytest.raises(KeyboardInterrupt):
        make_demo_data(tmp_path / 'demo', SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('numbers', [dict(train_digits=1501), dict(val_digits=0)])
def test_more_digits_than_there_are(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match='at least 1 each and 1797 together'):
        make_demo_data(tmp_path / 'demo', DemoData(**numbers))
    assert not list(tmp_path.iterdir())


def test_tool(tmp_path: Path) -> None:
    out = tmp_path / 'data' / 'demo'
    numbers = ['--train-digits', '20', '--val-digits', '10', '--train-scenes', '2', '--val-scenes', '1']
    command = [sys.executable, 'tools/make_demo_data.py', str(out), *numbers]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f'{out}: written' in said
    make_demo_data(tmp_path / 'expected', SMALL)
    assert contents(out) == contents(tmp_path / 'expected')


def test_mmpretrain_and_mmseg_read_it(demo_data: Path) -> None:
    from mmpretrain.datasets import CustomDataset
    from mmseg.datasets import BaseSegDataset

    digits = CustomDataset(data_root=str(demo_data / 'imagenet'), data_prefix='train')
    assert ''.join(digits.CLASSES) == '0123456789'
    assert len(digits) == 40
    assert all(
        Path(sample['img_path']).parent.name == str(sample['gt_label']) for sample in map(digits.get_data_info, range(40))
    )

    scenes = BaseSegDataset(
        data_root=str(demo_data / 'ade20k'),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        metainfo=dict(classes=SCENE_CLASSES),
        reduce_zero_label=True,
        pipeline=[dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
    )
    assert len(scenes) == 6
    labels = scenes[0]['gt_seg_map']
    assert set(np.unique(labels)) <= {*range(11), 255}
    assert 255 in labels
    assert 10 in labels
