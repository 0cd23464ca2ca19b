import os

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from numbered import Recorded, images, write_reference
from PIL import Image

from usp_mm.cli import evaluate
from usp_mm.evaluation import FeatureMetrics, PixelFeatures
from usp_mm.evaluation.computed_statistics import cache_folder, reference_statistics, usable_cache_folder
from usp_mm.evaluation.images import FolderImages
from usp_mm.evaluation.reference_data import Reference, warn_of_other_classes
from usp_mm.functional.metrics import mean_covariance
from usp_mm.images import DECODING

CPU = torch.device('cpu')
SHAPES = dict(mu=(2048,), sigma=(2048, 2048), mu_s=(2023,), sigma_s=(2023, 2023))


@pytest.fixture(scope='module')
def statistics():
    """ADM's four arrays."""
    return {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(SHAPES.items())}


def features_of_reference(reference, extractor, cache_dir, batch_size=7):
    return reference_statistics(reference, extractor, ['features'], 'features', CPU, batch_size, cache_dir)


def test_statistics_of_images(tmp_path):
    reference = Reference(write_reference(tmp_path / 'ref.npz'), adm=False, num_neighbours=100)
    extractor = Recorded()
    found = features_of_reference(reference, extractor, tmp_path / 'cache')
    for ours, expected in zip(found.moments['features'], mean_covariance(extractor.tables[1]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert reference.neighbour_indices == list(range(0, 600, 6))
    torch.testing.assert_close(found.neighbours, extractor.tables[1, ::6], rtol=0, atol=0)


def test_statistics_are_kept_under_what_they_are_of(tmp_path):
    path, cache, extractor = write_reference(tmp_path / 'ref.npz', 40), tmp_path / 'cache', Recorded()

    def images_seen(extractor=extractor, num_neighbours=10):
        before = extractor.seen
        found = features_of_reference(Reference(path, False, num_neighbours), extractor, cache)
        return extractor.seen - before, found

    (seen, first), (again, kept) = images_seen(), images_seen()
    assert (seen, again) == (40, 0)
    for one, other in zip(first.moments['features'], kept.moments['features'], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(first.neighbours, kept.neighbours)
    assert len(list((cache / 'references').iterdir())) == 1
    assert images_seen(num_neighbours=11)[0] == 40
    other = Recorded(2.0)
    other.identity = 'recorded, doubled'
    seen, doubled = images_seen(other)
    assert seen == 40
    torch.testing.assert_close(doubled.moments['features'][0], 2 * first.moments['features'][0], rtol=1e-6, atol=1e-9)
    write_reference(tmp_path / 'ref.npz', 39)
    assert images_seen()[0] == 39


@pytest.mark.parametrize('damage', ['half', 'empty', 'other arrays'])
def test_broken_statistics_are_replaced(tmp_path, warnings, damage):
    path, cache, extractor = write_reference(tmp_path / 'ref.npz', 40), tmp_path / 'cache', Recorded()
    reference = Reference(path, False, 10)
    first = features_of_reference(reference, extractor, cache)
    (file,) = (cache / 'references').iterdir()
    whole = file.read_bytes()
    if damage == 'other arrays':
        np.savez(file, neighbours=np.zeros((10, 3), np.float32))
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == 'half' else b'')
    again = features_of_reference(reference, extractor, cache)
    assert extractor.seen == 80 and len(warnings) == 1 and f"statistics '{file}' are broken" in warnings[0]
    assert torch.equal(again.moments['features'][1], first.moments['features'][1])
    features_of_reference(reference, extractor, cache)
    assert extractor.seen == 80


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('USP_CACHE', str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder('elsewhere').name == 'elsewhere'
    monkeypatch.delenv('USP_CACHE')
    monkeypatch.setenv('HOME', '/home/someone')
    assert str(cache_folder()) == '/home/someone/.cache/usp_mm'


def test_a_cache_folder_that_cannot_be_written_to(monkeypatch, tmp_path):
    """The default one is replaced, one that was asked for is refused before anything is computed."""
    monkeypatch.delenv('USP_CACHE', raising=False)
    monkeypatch.setenv('HOME', '/dev/null/home')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    assert usable_cache_folder() == tmp_path / f'usp_mm-{os.getuid()}' and usable_cache_folder().is_dir()
    reference = write_reference(tmp_path / 'reference.npz')
    options = dict(num_reference_pr=6, num_workers=0)
    with pytest.raises(OSError, match="cache_dir: cannot write '/dev/null/c': '/dev/null' is a file, not a folder"):
        FeatureMetrics(PixelFeatures(), reference, cache_dir='/dev/null/c', **options)
    monkeypatch.setenv('USP_CACHE', '/dev/null/d')
    with pytest.raises(OSError, match="USP_CACHE: cannot write '/dev/null/d'"):
        FeatureMetrics(PixelFeatures(), reference, **options)


def test_adm_statistics_come_from_the_file(tmp_path, statistics):
    np.savez_compressed(tmp_path / 'ref.npz', **statistics)
    reference = Reference(tmp_path / 'ref.npz', adm=True, num_neighbours=0)
    extractor = Recorded()
    found = reference_statistics(reference, extractor, ['pool', 'spatial'], 'pool', CPU, cache_dir=tmp_path / 'cache')
    assert extractor.seen == 0 and not (tmp_path / 'cache').exists()
    assert [float(x.flatten()[0]) for name in ('pool', 'spatial') for x in found.moments[name]] == [0, 1, 2, 3]
    assert found.moments['spatial'][1].shape == (2023, 2023) and found.moments['pool'][0].dtype == torch.float64


@pytest.mark.parametrize(
    ('kept', 'extra', 'adm', 'num_neighbours', 'message'),
    [
        ([], {}, True, 10, r"neither statistics nor images, found \['labels'\]: expected ADM's \(mu, sigma, mu_s, sigma_s\)"),
        ([], {}, False, 10, r"holds no images: expected arr_0, found \['labels'\]"),
        (['mu', 'sigma'], {}, True, 0, r"holds \['mu', 'sigma'\] but not \['mu_s', 'sigma_s'\]"),
        (list(SHAPES), {}, True, 10, r'statistics but no images \(arr_0\).*num_reference_pr=0'),
        (list(SHAPES), {}, False, 10, r'statistics of one network are of no use for another'),
        (list(SHAPES), {'mu': np.zeros(64)}, True, 0, r"'mu' has shape \(64,\), ADM's statistics have \(2048,\)"),
        ([], {'arr_0': images(3).astype(np.int64)}, True, 0, r"'arr_0' of .* is int64\[3, 8, 8, 3\]: expected images as uint8"),
    ],
)  # fmt: skip
def test_bad_references(tmp_path, statistics, kept, extra, adm, num_neighbours, message):
    chosen = {name: statistics[name] for name in kept}
    np.savez_compressed(tmp_path / 'ref.npz', **{'labels': np.arange(3), **chosen, **extra})
    with pytest.raises(ValueError, match=message):
        Reference(tmp_path / 'ref.npz', adm, num_neighbours)


def test_missing_reference(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz' does not exist"):
        Reference(tmp_path / 'none.npz', True, 10)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no image in'):
        Reference(tmp_path / 'empty', True, 10)


@pytest.fixture
def two_ways(tmp_path):
    """Seven images, and two in a sub-folder."""
    for i, image in enumerate(images(9)):
        path = tmp_path / 'ref' / ('more' if i > 6 else '') / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / 'ref'


def test_a_folder_that_can_be_read_in_two_ways(two_ways):
    with pytest.raises(ValueError, match=r"7 images lie in it, 2 in its sub-folders \('more'\)"):
        Reference(two_ways, adm=False, num_neighbours=4)
    for with_label, num in ((True, 2), (False, 9)):
        assert Reference(two_ways, adm=False, num_neighbours=4, with_label=with_label).images.num == num
    metric = FeatureMetrics(PixelFeatures(), str(two_ways), num_reference_pr=6, with_label=False)
    assert metric.reference.images.num == 9


def test_layouts_of_the_tool(two_ways, monkeypatch):
    command = ['evaluate.py', 'samples', '--ref', str(two_ways), '--features', 'pixel', '--layout', 'classes']
    monkeypatch.setattr('sys.argv', command)
    assert evaluate.parse_args().layout == 'classes'
    with pytest.raises(ValueError, match='can be read in two ways'):
        evaluate.build_metric(evaluate.parse_args())
    monkeypatch.setattr('sys.argv', [*command, '--ref-layout', 'flat'])
    assert evaluate.build_metric(evaluate.parse_args()).reference.images.num == 9


def test_statistics_of_another_decoding_are_not_taken(two_ways, tmp_path, monkeypatch):
    extractor = PixelFeatures()
    for decoding, files in ((DECODING, 1), (DECODING, 1), ('RGB in another way', 2)):
        monkeypatch.setattr(FolderImages, 'decoding', decoding)
        features_of_reference(Reference(two_ways, False, 4, with_label=False), extractor, tmp_path / 'cache')
        assert len(list((tmp_path / 'cache' / 'references').iterdir())) == files


def test_other_class_folders_than_the_samples_are_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: told.append(message))
    for name in ('a', 'b', 'x'):
        (tmp_path / name).mkdir()
        Image.new('RGB', (8, 8)).save(tmp_path / name / '0.png')
    reference = Reference(tmp_path, False, 3)
    assert reference.images.classes == ('a', 'b', 'x')
    for same in (dict(classes=['x', 'a', 'b']), dict(num_classes=3, classes=None), {}):
        warn_of_other_classes(same, reference)
    assert told == []
    warn_of_other_classes(dict(classes=['a', 'b', 'c'], num_classes=3), reference)
    warn_of_other_classes(dict(num_classes=10), reference)
    assert [line.split('(')[1].split(')')[0] for line in told] == ["missing 'c'; extra 'x'", '3 instead of 10']
