"""What a run compares with checksums before it reads a cache."""

import random
import shutil
from pathlib import Path

import pytest
from fake_codec import fake_codec, image_folder

from usp_mm.datasets import LatentCacheDataset
from usp_mm.datasets.latent_cache import verify
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> Path:
    root = image_folder(tmp_path_factory.mktemp('images'), {'b': 5, 'a': 3})
    out = tmp_path_factory.mktemp('caches') / 'cache'
    write_cache(str(root), out, fake_codec(), CacheSpec(32, encode_batch_size=2, shard_size=2), 2, 0)
    return out


@pytest.fixture
def cache(written, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(verify, '_INTACT', set())
    return Path(shutil.copytree(written, tmp_path / 'cache'))


@pytest.mark.parametrize('how', ['full', 'fast'])
def test_every_flipped_bit_is_found(cache, how):
    draw = random.Random(3)
    files = [path for path in sorted(cache.iterdir()) if path.suffix == '.npy' or path.name == 'samples.txt']
    for _ in range(60):
        path = draw.choice(files)
        content = path.read_bytes()
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        with pytest.raises(ValueError, match=rf'{path.name} is damaged \(SHA-256 is \w+, the manifest says \w+\): run '):
            LatentCacheDataset(str(cache), verify=how)
        path.write_bytes(content)
    assert len(LatentCacheDataset(str(cache), verify=how)) == 8


def read_by(cache: Path, monkeypatch, how: str, rank: int = 0, world_size: int = 1) -> list[str]:
    read: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(verify, '_INTACT', set())
        patch.setattr(verify, 'get_dist_info', lambda: (rank, world_size))
        patch.setattr(verify, '_problem', lambda path, digest: read.append(path.name))
        LatentCacheDataset(str(cache), verify=how)
        LatentCacheDataset(str(cache), verify=how)  # the validation of the same run: nothing is read twice
    return read


def test_processes_share_a_full_check(cache, monkeypatch):
    shares = [read_by(cache, monkeypatch, 'full', rank, 3) for rank in range(3)]
    shards = sorted(name for share in shares for name in share if name.startswith('shard'))
    assert shards == [f'shard-0000{i}.npy' for i in range(4)]
    assert all({'labels.npy', 'samples.txt'} < set(share) for share in shares)


def test_fast_reads_a_part_drawn_anew_and_off_nothing(cache, monkeypatch):
    monkeypatch.setattr(verify, 'FAST_BYTES', 1)
    drawn = [tuple(name for name in read_by(cache, monkeypatch, 'fast') if name.startswith('shard')) for _ in range(40)]
    assert {len(names) for names in drawn} <= {1, 2} and len({name for names in drawn for name in names}) == 4
    assert read_by(cache, monkeypatch, 'off') == []


def test_another_word(cache):
    with pytest.raises(ValueError, match=r"^verify='quick' must be one of full, fast, off$"):
        LatentCacheDataset(str(cache), verify='quick')
