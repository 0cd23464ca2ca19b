"""Latents that the official code cached, a file an image, become a cache like ours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_codec import fake_codec, image_folder
from helpers.small_world import run_tool
from PIL import Image

from usp_mm.datasets import LatentCacheDataset
from usp_mm.datasets.latent_cache import importer, read_manifest
from usp_mm.datasets.latent_cache.importer import import_cache
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.verify import verify_cache
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.vaes import build_codec
from usp_mm.vaes.tiny import make_tiny_vae, save_vae


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp('images'), {'b': 4, 'a': 3})


@pytest.fixture(scope='module')
def written(images, tmp_path_factory) -> Path:
    """Our own cache of these images."""
    out = tmp_path_factory.mktemp('written') / 'cache'
    write_cache(str(images), out, fake_codec(), CacheSpec(32, dtype='float32', shard_size=3), num_workers=0)
    return out


@pytest.fixture
def official(written, tmp_path) -> Path:
    """The same latents as MAR's code leaves them: CLASS/IMAGE.npz with two arrays."""
    folder, names = tmp_path / 'official', (written / 'samples.txt').read_text().split()
    shards = np.concatenate([np.load(path) for path in sorted(written.glob('shard-*.npy'))])
    moments = np.concatenate([shards['mean'], shards['logvar']], axis=2)
    for name, (plain, flipped) in zip(names, moments, strict=True):
        path = folder / f'{name}.npz'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, moments=plain, moments_flip=flipped)
    return folder


def take_over(official, out, **settings):
    settings = dict(dtype='float32', shard_size=3, num_workers=0) | settings
    return import_cache(str(official), out, fake_codec(), **settings)


def test_the_bytes_are_those_of_our_own_cache(official, written, images, tmp_path):
    take_over(official, tmp_path / 'out', images=str(images))
    for path in written.iterdir():
        if path.name not in ('manifest.json', 'plan.json'):
            assert (tmp_path / 'out' / path.name).read_bytes() == path.read_bytes(), path.name
    ours, theirs = read_manifest(written), read_manifest(tmp_path / 'out')
    differing = {key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}
    assert differing == {'crop', 'encode_dtype', 'encode_batch_size', 'imported'}
    assert theirs['imported'] == '.npz with moments and moments_flip' and theirs['encode_dtype'] == 'unknown'
    assert verify_cache(tmp_path / 'out') == {}
    dataset = LatentCacheDataset(str(tmp_path / 'out'), img_size=32, images=str(images), flip=False)
    assert dataset[0]['images'].shape == (3, 32, 32) and dataset.CLASSES == ('a', 'b')


def test_without_mirror_images_there_is_one_view(official, tmp_path):
    for path in official.rglob('*.npz'):
        np.savez(path, moments=np.load(path)['moments'].astype(np.float16))
    manifest = take_over(official, tmp_path / 'out')
    assert manifest['views'] == ['crop 0'] and not manifest['flip']


def test_an_import_that_was_stopped_goes_on(official, tmp_path, monkeypatch):
    monkeypatch.setattr(importer, '_PROBED', 2)
    last = sorted(official.rglob('*.npz'))[-1]
    content = last.read_bytes()
    last.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"cannot read '.*b/3.png.npz'"):
        take_over(official, tmp_path / 'out', batch_size=1)
    assert (tmp_path / 'out' / 'shard-00000.npy').is_file() and not (tmp_path / 'out' / 'manifest.json').exists()
    stamp = (tmp_path / 'out' / 'shard-00000.npy').stat().st_mtime_ns
    last.write_bytes(content)
    take_over(official, tmp_path / 'out')
    assert (tmp_path / 'out' / 'shard-00000.npy').stat().st_mtime_ns == stamp and verify_cache(tmp_path / 'out') == {}


def test_the_folder_is_listed_once(official, written, tmp_path, monkeypatch):
    """What comes or goes while it is read is not taken for a sample of the plan."""
    scans, scan = [], importer.scan_image_folder

    def listed(source, **settings):
        scans.append(source)
        found = scan(source, **settings)
        np.savez(official / 'a' / '0.later.npz', moments=np.zeros(1))
        return found

    monkeypatch.setattr(importer, 'scan_image_folder', listed)
    take_over(official, tmp_path / 'out')
    assert len(scans) == 1
    for name in ('samples.txt', 'shard-00000.npy', 'shard-00001.npy', 'shard-00002.npy'):
        assert (tmp_path / 'out' / name).read_bytes() == (written / name).read_bytes()


def test_an_ending_in_capitals_is_named(official, tmp_path):
    first = sorted(official.rglob('*.npz'))[0]
    first.rename(first.with_suffix('.NPZ'))
    with pytest.raises(ValueError, match=r"'a/0\.png\.NPZ' of '.*' must end in \.npz, in lower case: rename it"):
        take_over(official, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda x: dict(latents=x), r"moments must be \[8, h, w\] for VAE 'sd-f8d4', found no such array"),
        (lambda x: dict(moments=x[:4]), r'found \[4, 4, 4\]: name the VAE'),
        (lambda x: dict(moments=0.01 * x), 'they are of another VAE, or were stored scaled already'),
        (lambda x: dict(moments=x + np.nan), 'standard deviation of nan'),
    ],
)
def test_other_files_are_refused_before_anything_is_written(change, message, official, tmp_path):
    for path in official.rglob('*.npz'):
        np.savez(path, **change(np.load(path)['moments']))
    with pytest.raises(ValueError, match=message):
        take_over(official, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_one_file_of_another_size_is_named(official, tmp_path):
    last = sorted(official.rglob('*.npz'))[-1]
    np.savez(last, moments=np.zeros((8, 2, 2), np.float32), moments_flip=np.zeros((8, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"b/3.png.npz': moments must be float\[8, 4, 4\].*found float32\[8, 2, 2\]"):
        take_over(official, tmp_path / 'out')


def test_latents_of_other_images_are_refused(official, images, tmp_path):
    other = image_folder(tmp_path / 'other', {'a': 3, 'b': 4}, side=(32, 48))
    with pytest.raises(ValueError, match=r"are not what VAE 'sd-f8d4' makes of that image in '.*other'.*standard deviations"):
        take_over(official, tmp_path / 'out', images=str(other))
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_the_command_on_one_process(demo_data, tmp_path):
    vae_folder, source, folder = tmp_path / 'vae', tmp_path / 'official' / '3', demo_data / 'imagenet' / 'val' / '3'
    save_vae(make_tiny_vae(scaling_factor=4.0), vae_folder)  # about unit deviation
    codec = build_codec('tiny', path=vae_folder)
    source.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        pixels = torch.from_numpy(np.array(Image.open(path).convert('RGB'))).permute(2, 0, 1)[None]
        moments, flipped = (codec.encode((x.float() - 127.5) / 127.5)[0] for x in (pixels, pixels.flip(-1)))
        np.savez(source / f'{path.name}.npz', moments=moments, moments_flip=flipped)
    vae = ['--vae', 'tiny', '--vae-path', vae_folder, '--workers', 0]
    command = ['tools/cache_latents.py', 'import', tmp_path / 'official', tmp_path / 'out', *vae, '--images']
    done = run_tool(*command, folder.parent)
    assert done.returncode == 0, done.stderr
    assert 'images encoded again' in done.stdout + done.stderr
    assert read_manifest(tmp_path / 'out')['image_size'] == 64
    missing = run_tool('tools/cache_latents.py', 'import', tmp_path / 'none', tmp_path / 'x', *vae)
    assert missing.returncode == 1 and 'does not exist: give the folder that holds the .npz files' in missing.stderr
