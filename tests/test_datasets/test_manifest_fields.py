"""Every field of a cache's manifest is checked, and nothing outside of the cache is ever deleted or read."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from fake_codec import fake_codec, image_folder

from usp_mm.datasets import LatentCacheDataset
from usp_mm.datasets.latent_cache import read_manifest
from usp_mm.datasets.latent_cache.manifest import read_plan
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.verify import describe_cache, verify_cache
from usp_mm.datasets.latent_cache.writer import write_cache


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> Path:
    """A cache of 10 images in shards of 4."""
    root = image_folder(tmp_path_factory.mktemp('images'), {'b': 5, 'a': 3, 'c': 2})
    out = tmp_path_factory.mktemp('caches') / 'cache'
    write_cache(str(root), out, fake_codec(), CacheSpec(32, encode_batch_size=2, shard_size=4), 2, 0)
    return out


@pytest.fixture
def cache(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / 'outer' / 'cache'))


def change(cache: Path, key: str, value, name: str = 'manifest.json') -> None:
    content = json.loads((cache / name).read_text())
    *parents, last = key.split('.')
    node = content
    for part in parents:
        node = node[int(part) if isinstance(node, list) else part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    (cache / name).write_text(json.dumps(content))


NAN = float('nan')
WRONG = [
    *((key, value) for key in ('num_samples', 'shard_size', 'channels', 'crops', 'image_size') for value in (0, -1, 2.5, True)),
    *((key, value) for key in ('vae', 'dtype', 'store', 'views', 'crop', 'fields') for value in (None, 7, [[]])),
    ('labels_sha256', None), ('labels_sha256', 7),
    *((key, value) for key in ('latent_mean', 'latent_std') for value in ([NAN] * 4, [1e999] * 4, [], ['1'] * 4, [0.0] * 3)),
    ('num_samples', 10**12), ('num_samples', 11), ('num_samples', 9), ('shard_size', 3), ('shard_size', 10**12),
    ('num_samples', ...), ('shards', ...), ('shards', []), ('shards', {}), ('shards', [None] * 3),
    ('latent_std', [-1.0] * 4), ('scale', NAN), ('scale', 10**400), ('shift', 'x'), ('flip', 'yes'), ('views', ['one']),
    ('classes', ['a', 'a', 'b']), ('classes', ['a', '\ud800', 'b']), ('classes', 3), ('crop', dict(mode='corner')),
    ('crop', dict(mode='random', scale=[0.5, NAN], seed=0)), ('channels', 2**16), ('latent_size', 5), ('encode_batch_size', 0),
    ('labels_sha256', 'G' * 64), ('samples_sha256', 'a' * 63), ('teacher', dict(name='x')), ('teacher_shards', [{}]),
    ('teacher', dict(name='x', weight_hash='y', dtype='float32', stored='float16', grid=[2, 2], dim=10**9)),
    *((f'shards.1.{key}', value) for key, value in dict(count=5, bytes=-1, sha256='x').items()),
    *(('shards.1.file', name) for name in ('../precious', '/tmp/precious', 'precious', 'shard-00002.npy', 'shard-1.npy', 7)),
]  # fmt: skip


@pytest.mark.parametrize(('key', 'value'), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_field_is_one_line_and_deletes_nothing(cache, key, value):
    precious = cache.parent / 'precious'
    precious.touch()
    change(cache, key, value)
    before, start = sorted(cache.iterdir()), time.monotonic()
    for use in (read_manifest, lambda path: LatentCacheDataset(str(path)), lambda path: verify_cache(path, delete_bad=True)):
        with pytest.raises(ValueError, match=rf"^'{cache}/manifest.json': .*{key.split('.')[0]}") as error:
            use(cache)
        assert '\n' not in str(error.value) and len(str(error.value)) < 600
    assert precious.exists() and sorted(cache.iterdir()) == before and time.monotonic() - start < 10


def test_one_shard_of_many_samples_ends_at_once(cache):
    change(cache, 'num_samples', 10**12)
    change(cache, 'shard_size', 10**12)
    entry = json.loads((cache / 'manifest.json').read_text())['shards'][0]
    change(cache, 'shards', [dict(entry, count=10**12)])
    with pytest.raises(ValueError, match=r'shard-00000\.npy missing or of the wrong size'):
        LatentCacheDataset(str(cache))
    assert 'shard-00000.npy' in verify_cache(cache)


def test_a_plan_is_checked_too(cache):
    change(cache, 'num_samples', 10**12, 'plan.json')
    with pytest.raises(ValueError, match='num_samples and shard_size make 250,000,000,000 shards, expected at most 100,000'):
        read_plan(cache)
    change(cache, 'num_samples', 10, 'plan.json')
    assert read_plan(cache)['num_samples'] == 10


def test_only_the_links_of_a_cache_are_deleted(cache):
    precious, folder = cache.parent / 'precious', cache / 'shard-00001.npy'
    precious.write_text('mine')
    (cache / 'shard-00000.npy').unlink()
    (cache / 'shard-00000.npy').symlink_to('../precious')
    folder.unlink()
    folder.mkdir()
    assert sorted(verify_cache(cache, delete_bad=True)) == ['shard-00000.npy', 'shard-00001.npy']
    assert precious.read_text() == 'mine' and folder.is_dir() and not (cache / 'shard-00000.npy').is_symlink()


def test_other_bytes_than_the_shape_makes(cache):
    change(cache, 'shards.2.bytes', 7)
    assert verify_cache(cache)['shard-00002.npy'].startswith('the manifest says 7 bytes, its shape makes ')


def test_classes_without_names(cache):
    change(cache, 'classes', ['a', 'b'])
    with pytest.raises(ValueError, match=r'labels\.npy. holds classes from 0 to 2, the manifest has 2 names'):
        LatentCacheDataset(str(cache))
    change(cache, 'classes', None)
    assert describe_cache(cache)['classes'] == 0


@pytest.mark.parametrize('labels', [np.zeros(9, np.int64), np.zeros(10), np.zeros((10, 1), np.int64), np.array([object()])])
def test_labels_of_another_form(cache, labels):
    np.save(cache / 'labels.npy', labels, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"'{cache}/labels\.npy' (holds|is broken)") as error:
        LatentCacheDataset(str(cache), verify='off')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['/etc/passwd', '../x.png', 'a/../../x.png', 'a/..'])
def test_paths_that_lead_out_of_the_images(cache, name):
    lines = (cache / 'samples.txt').read_text().split('\n')
    lines[4] = name
    (cache / 'samples.txt').write_text('\n'.join(lines))
    with pytest.raises(ValueError, match=rf"samples\.txt' names '{name}', which is not in the folder of images"):
        LatentCacheDataset(str(cache), verify='off').image_paths()
