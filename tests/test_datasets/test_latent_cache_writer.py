"""Writing a latent cache in this process."""

import errno
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fake_codec import fake_codec, image_folder, truncate_jpeg
from helpers.forked_world import forked_world
from helpers.full_disk import fill_disk_at
from helpers.held_lock import held_elsewhere
from PIL import Image
from torch import Tensor

from usp_mm.datasets import LatentCacheDataset
from usp_mm.datasets.latent_cache import plan, read_manifest
from usp_mm.datasets.latent_cache.crops import AS_STORED, center_crop
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.shard_filling import StageTimes
from usp_mm.datasets.latent_cache.verify import describe_cache, verify_cache
from usp_mm.datasets.latent_cache.writer import speed_line, write_cache
from usp_mm.images import DECODING
from usp_mm.vaes import build_codec

SPEC = dict(img_size=32, dtype='float32', shard_size=3)


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp('images'), {'b': 4, 'a': 3, 'c': 1})


def write(images: Path, out: Path, batch_size: int = 2, num_workers: int = 0, **spec) -> Path:
    write_cache(str(images), out, fake_codec(), CacheSpec(**{**SPEC, **spec}), batch_size, num_workers)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != '.lock'}


def pixels(path: Path) -> Tensor:
    crop = np.asarray(center_crop(Image.open(path), 32), dtype=np.float32)
    return torch.from_numpy((crop - 127.5) / 127.5).permute(2, 0, 1)


def views_on_disk(out: Path) -> Tensor:
    """float32[N, V, 2C, h, w], read without the package's reader."""
    shards = [np.load(path) for path in sorted(out.glob('*.npy')) if path.name != 'labels.npy']
    records = np.concatenate(shards)
    return torch.from_numpy(np.concatenate([records['mean'], records['logvar']], axis=2))


def test_views_are_the_encodings_of_image_and_mirror_image(images: Path, tmp_path: Path) -> None:
    out = write(images, tmp_path / 'out')
    paths = sorted(images.glob('*/*.png'))
    batch = torch.stack([pixels(path) for path in paths])
    codec = fake_codec()
    found = views_on_disk(out)
    assert torch.equal(found[:, 0], codec.encode(batch))
    assert torch.equal(found[:, 1], codec.encode(batch.flip(-1)))
    assert not torch.allclose(found[:, 1], found[:, 0].flip(-1)), 'the mirror image is encoded, not its latent mirrored'
    assert (out / 'samples.txt').read_text().split() == [path.relative_to(images).as_posix() for path in paths]
    assert np.load(out / 'labels.npy').tolist() == [0, 0, 0, 1, 1, 1, 1, 2]


def test_manifest(images: Path, tmp_path: Path) -> None:
    out = write(images, tmp_path / 'out')
    manifest = read_manifest(out)
    assert manifest == read_manifest(out / 'manifest.json')
    expected = dict(
        vae='sd-f8d4', vae_weight_hash=fake_codec().weight_hash, scale=0.18215, image_size=32, dtype='float32', num_samples=8,
        classes=['a', 'b', 'c'], views=['crop 0', 'crop 0, flipped'], encode_dtype='float32', store='moments',
    )  # fmt: skip
    assert {key: manifest[key] for key in expected} == expected
    assert [(shard['file'], shard['count']) for shard in manifest['shards']] == [
        ('shard-00000.npy', 3),
        ('shard-00001.npy', 3),
        ('shard-00002.npy', 2),
    ]
    summary = describe_cache(out)
    assert summary['bytes_per_image'] == sum(path.stat().st_size for path in out.glob('shard-*.npy')) / 8
    mean, logvar = views_on_disk(out).double().chunk(2, dim=2)
    variance = mean.var((0, 1, 3, 4), unbiased=False) + logvar.exp().mean((0, 1, 3, 4))
    assert manifest['latent_mean'] == pytest.approx(mean.mean((0, 1, 3, 4)).tolist(), rel=1e-12)
    assert manifest['latent_std'] == pytest.approx(variance.sqrt().tolist(), rel=1e-12)
    stats = build_codec('va-f16d32', load_weights=False)
    with pytest.raises(ValueError, match='latent_mean has 4 numbers'):
        stats.set_stats(manifest['latent_mean'], manifest['latent_std'])


def test_means_alone_have_the_deviation_of_means(images: Path, tmp_path: Path) -> None:
    manifest = read_manifest(write(images, tmp_path / 'out', store='mean'))
    batch = torch.stack([pixels(path) for path in sorted(images.glob('*/*.png'))])
    mean = torch.cat([fake_codec().encode(view)[:, :4] for view in (batch, batch.flip(-1))]).double()
    assert manifest['latent_std'] == pytest.approx(mean.std((0, 2, 3), unbiased=False).tolist(), rel=1e-9)


@pytest.mark.parametrize('random_crops', [0, 2])
def test_bytes_do_not_depend_on_batches_and_workers(images: Path, tmp_path: Path, random_crops: int) -> None:
    first = write(images, tmp_path / 'first', batch_size=1, random_crops=random_crops, dtype='float16')
    second = write(images, tmp_path / 'second', batch_size=5, num_workers=2, random_crops=random_crops, dtype='float16')
    assert contents(first) == contents(second)


def test_bytes_of_a_real_vae_do_not_depend_on_batches(demo_data: Path, tiny_vae_folder: Path, tmp_path: Path) -> None:
    """Convolutions round by the size of the batch, hence calls of one size."""
    for batch_size in (3, 64):
        codec = build_codec('tiny', path=tiny_vae_folder)
        spec = CacheSpec(img_size=32, dtype='float32', shard_size=7, encode_batch_size=4)
        write_cache(str(demo_data / 'imagenet' / 'val'), tmp_path / str(batch_size), codec, spec, batch_size, 0)
    assert contents(tmp_path / '3') == contents(tmp_path / '64')


def test_random_crops_differ_and_follow_the_seed(images: Path, tmp_path: Path) -> None:
    found = views_on_disk(write(images, tmp_path / 'out', random_crops=3))
    assert found.shape == (8, 6, 8, 4, 4)
    assert len({view.numpy().tobytes() for view in found.flatten(0, 1)}) == 48
    other = views_on_disk(write(images, tmp_path / 'other', random_crops=3, seed=1))
    assert not (found == other).flatten(2).all(-1).any()
    fewer = views_on_disk(write(images, tmp_path / 'fewer', random_crops=1))
    assert torch.equal(fewer, found[:, :2]), 'crop k depends on (seed, image, k)'
    assert read_manifest(tmp_path / 'out')['crop']['scale'] == [0.2, 1.0]


def test_two_processes_write_what_one_does(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 first: without a process group nobody waits, so the manifest is rank 0's to write last."""
    expected = contents(write(images, tmp_path / 'one'))
    module = 'usp_mm.datasets.latent_cache.writer'
    monkeypatch.setattr(f'{module}.decide_on_rank0', lambda decide: prepared)
    from usp_mm.datasets.latent_cache.plan import prepare

    prepared = prepare(str(images), tmp_path / 'two', fake_codec(), CacheSpec(**SPEC))
    monkeypatch.setattr(f'{module}.get_dist_info', lambda: (1, 2))
    monkeypatch.setattr(f'{module}.run_on_rank0', lambda action: None)
    write(images, tmp_path / 'two')
    assert sorted(path.name for path in (tmp_path / 'two').glob('shard-*.npy')) == ['shard-00001.npy']
    monkeypatch.setattr(f'{module}.get_dist_info', lambda: (0, 2))
    monkeypatch.setattr(f'{module}.run_on_rank0', lambda action: action())
    write(images, tmp_path / 'two')
    assert contents(tmp_path / 'two') == expected


@pytest.mark.parametrize(
    ('processes', 'written', 'bar'), [(1, [8], (8, 'encoding')), (2, [5, 3], (5, 'encoding, process 1 of 2'))]
)
def test_the_speed_is_that_of_all_processes(
    processes: int, written: list[int], bar: tuple[int, str], images: Path, tmp_path: Path
) -> None:
    """8 images in shards of 3, 3 and 2: of two processes the first writes 5, which is what its bar shows."""

    def work(rank: int) -> None:
        writer, filling = 'usp_mm.datasets.latent_cache.writer.speed_line', 'usp_mm.datasets.latent_cache.shard_filling.tqdm'
        with patch(writer, return_value='') as line, patch(filling) as bar:
            write(images, tmp_path / 'out')
        if rank == 0:
            shown = [times.images for times in line.call_args.args[0]], [bar.call_args.kwargs[key] for key in ('total', 'desc')]
            (tmp_path / 'shown').write_text(repr(shown))
        else:
            assert bar.call_args.kwargs['disable'] and not line.called

    assert forked_world(processes, work) == [0] * processes
    assert (tmp_path / 'shown').read_text() == repr((written, list(bar)))


def test_times_of_processes_are_summed_up() -> None:
    times = [StageTimes(images=64, encode=0.9, write=0.1, total=1.0), StageTimes(images=136, encode=1.5, write=0.4, total=2.0)]
    assert speed_line(times) == ('100.0 images/s in 2.0 s by 2 processes, writing 17 % of the time and the encoder busy 80 %')
    assert speed_line(times[:1]) == '64.0 images/s in 1.0 s, writing 10 % of the time and the encoder busy 90 %'


def test_finished_shards_are_kept(images: Path, tmp_path: Path) -> None:
    out = write(images, tmp_path / 'out')
    before, times = contents(out), {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    write(images, out)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times, 'complete: nothing to do'
    (out / 'shard-00001.npy').unlink()
    (out / 'shard-00002.json').unlink()
    write(images, out)
    assert contents(out) == before
    redone = {name for name, time in times.items() if (out / name).stat().st_mtime_ns != time}
    assert not {'shard-00000.npy', 'shard-00000.json'} & redone
    assert {'shard-00001.npy', 'shard-00002.npy', 'manifest.json'} <= redone


def test_a_short_shard_takes_the_manifest_back_until_it_is_redone(images: Path, tmp_path: Path) -> None:
    out = write(images, tmp_path / 'out')
    before = contents(out)
    with (out / 'shard-00001.npy').open('r+b') as file:
        file.truncate(100)
    truncate_jpeg(images / 'b' / 'half.jpg')
    try:
        with pytest.raises(ValueError, match='num_samples: 8 there, 9 now'):
            write(images, out)
    finally:
        (images / 'b' / 'half.jpg').unlink()
    write(images, out)
    assert contents(out) == before


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(img_size=40), 'image_size: 32 there, 40 now'),
        (dict(dtype='float16'), "dtype: 'float32' there, 'float16' now"),
        (dict(store='mean'), "store: 'moments' there, 'mean' now"),
        (dict(flip=False), 'flip: True there, False now'),
        (dict(random_crops=2), "crop mode: 'center' there, 'random' now"),
        (dict(shard_size=4), 'shard_size: 3 there, 4 now'),
    ],
)
def test_other_parameters_are_refused(images: Path, tmp_path: Path, change: dict, message: str) -> None:
    out = write(images, tmp_path / 'out')
    before = contents(out)
    with pytest.raises(ValueError, match=message):
        write(images, out, **change)
    assert contents(out) == before


@pytest.mark.parametrize(
    ('num', 'size', 'shards'),
    [(1, 16, 1), (20, 16, 2), (200, 16, 13), (1024, 32, 32), (1025, 64, 17), (50_000, 1600, 32), (1_281_167, 16384, 79)],
)
def test_shards_by_the_number_of_images(num: int, size: int, shards: int) -> None:
    found = plan.samples_a_shard(num)
    assert (found, -(-num // found)) == (size, shards)


def test_a_small_set_has_a_shard_for_each_of_two_processes_and_an_older_cache_keeps_its_own(tmp_path: Path) -> None:
    images = image_folder(tmp_path / 'images', {'a': 20})
    assert read_manifest(write(images, tmp_path / 'new', shard_size=None))['shard_size'] == 16
    assert [shard['count'] for shard in read_manifest(tmp_path / 'new')['shards']] == [16, 4]
    older = write(images, tmp_path / 'older', shard_size=16384)
    before = contents(older)
    write(images, older, shard_size=None)
    assert contents(older) == before
    with pytest.raises(ValueError, match='shard_size: 16384 there, 16 now'):
        write(images, older, shard_size=16)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(img_size=36), "image size 36 is not a multiple of the stride 8 of VAE 'sd-f8d4'"),
        (dict(img_size=0), 'img_size=0 must be'),
        (dict(dtype='float61'), "unknown storage dtype 'float61'"),
        (dict(store='modes'), "store='modes' must be one of"),
        (dict(random_crops=1, crop_scale=(0.5, 0.2)), 'crop_scale='),
        (dict(shard_size=0), 'shard_size=0 must be'),
    ],
)
def test_invalid_arguments_write_nothing(images: Path, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(images, tmp_path / 'out', **change)
    assert not (tmp_path / 'out').exists()


def test_bad_places_and_codecs(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='lies in the image folder'):
        write(images, images / 'a' / 'latents')
    with pytest.raises(FileNotFoundError, match=r'nowhere.* does not exist'):
        write(tmp_path / 'nowhere', tmp_path / 'out')
    with pytest.raises(ValueError, match="VAE 'pixel' has no latents to cache"):
        write_cache(str(images), tmp_path / 'out', build_codec('pixel'), CacheSpec(**SPEC), 2, 0)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('num_workers', [0, 1])
def test_truncated_image_is_named_and_leaves_no_manifest(tmp_path: Path, num_workers: int) -> None:
    root = image_folder(tmp_path / 'images', {'a': 3, 'b': 3})
    path = truncate_jpeg(root / 'b' / '1.jpg')
    with pytest.raises(ValueError, match=f"^cannot decode image '{path}': image file is truncated"):
        write(root, tmp_path / 'out', num_workers=num_workers)
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names == ['.lock', 'labels.npy', 'plan.json', 'samples.txt', 'shard-00000.json', 'shard-00000.npy']


@pytest.mark.parametrize(
    ('value', 'dtype', 'message'),
    [
        (float('nan'), 'float16', "the latent of image 'b/0.png' is not finite"),
        (1e6, 'float16', "the latent of image 'b/0.png' reaches 1e.06, beyond the range of dtype float16"),
    ],
)
def test_latents_that_cannot_be_stored(images: Path, tmp_path: Path, value: float, dtype: str, message: str) -> None:
    codec = fake_codec()
    encode, blue = codec.network.encode, float(pixels(images / 'b' / '0.png').sum())

    def spoil(batch: Tensor) -> Tensor:
        moments = encode(batch)
        moments[(batch.sum((1, 2, 3)) - blue).abs() < 1e-3, 2, 1, 1] = value
        return moments

    codec.network.encode = spoil
    with pytest.raises(ValueError, match=message):
        write_cache(str(images), tmp_path / 'out', codec, CacheSpec(**{**SPEC, 'dtype': dtype}), 2, 0)
    assert not (tmp_path / 'out' / 'manifest.json').exists()
    assert (tmp_path / 'out' / 'shard-00000.npy').exists()
    assert not (tmp_path / 'out' / 'shard-00001.npy').exists()


def test_full_disk(images: Path, tmp_path: Path, monkeypatch) -> None:
    """A device that is always full stands in for the second shard's file."""
    expected = contents(write(images, tmp_path / 'whole'))
    out = tmp_path / 'out'
    out.mkdir()
    size = sum(len(expected[f'shard-0000{i}.npy']) for i in (1, 2))
    with monkeypatch.context() as patch:
        fill_disk_at(patch, 'shard-00001.npy')
        with pytest.raises(OSError, match=rf'disk is full: needs {size:,} more bytes, [\d,]+ are free') as caught:
            write(images, out)
    assert caught.value.errno == errno.ENOSPC
    names = sorted(path.name for path in out.iterdir())
    assert names == ['.lock', 'labels.npy', 'plan.json', 'samples.txt', 'shard-00000.json', 'shard-00000.npy']
    assert contents(write(images, out)) == expected


def test_too_little_space_is_noticed_before_the_first_image(images: Path, tmp_path: Path, monkeypatch) -> None:
    codec = fake_codec()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r'too little disk space: needs [\d,]+ more bytes, 1,000 are free'):
        write_cache(str(images), tmp_path / 'out', codec, CacheSpec(**SPEC), 2, 0)
    assert codec.network.calls == 0
    assert not (tmp_path / 'out').exists()


def test_verify_finds_one_flipped_bit(images: Path, tmp_path: Path) -> None:
    out = write(images, tmp_path / 'out')
    before = contents(out)
    assert verify_cache(out) == {}
    for name in ('shard-00001.npy', 'labels.npy'):
        damaged = bytearray(before[name])
        damaged[-5] ^= 1
        (out / name).write_bytes(damaged)
    (out / 'shard-00002.npy').unlink()
    found = verify_cache(out)
    assert sorted(found) == ['labels.npy', 'shard-00001.npy', 'shard-00002.npy']
    assert found['shard-00002.npy'] == 'missing'
    assert found['shard-00001.npy'].startswith('SHA-256 is ')
    assert verify_cache(out, delete_bad=True) == found
    with pytest.raises(FileNotFoundError, match='is incomplete: run the same'):
        verify_cache(out)
    write(images, out)
    assert contents(out) == before


def test_a_second_writer_is_refused(images: Path, tmp_path: Path) -> None:
    out = write(images, tmp_path / 'out')
    (out / 'manifest.json').unlink()
    with held_elsewhere(out / '.lock'):
        with pytest.raises(ValueError, match=f"another process is writing latent cache '{out}'"):
            write(images, out)
    write(images, out)
    assert (out / 'manifest.json').is_file() and (out / '.lock').read_bytes() == b''


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    out = write(image_folder(tmp_path / 'images', {'': 4}), tmp_path / 'out')
    dataset = LatentCacheDataset(str(out))
    assert read_manifest(out)['classes'] is None
    assert 'gt_label' not in dataset[0]['data_samples']
    assert dataset.get_data_info(3)['img_path'] == '3.png'


def test_a_cache_of_before_goes_on_with_images_that_both_decodings_agree_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cache holds some images turned by their EXIF orientation and some not."""
    images = image_folder(tmp_path / 'images', {'a': 7}, side=(40, 32))
    with monkeypatch.context() as before:
        before.setattr(plan, 'DECODING', AS_STORED)
        out = write(images, tmp_path / 'out')
    reference = contents(out)
    assert read_manifest(out)['crop']['color'] == AS_STORED
    write(images, out)
    (out / 'shard-00001.npy').unlink()
    write(images, out)
    assert contents(out) == reference
    assert read_manifest(write(images, tmp_path / 'new'))['crop']['color'] == DECODING

    turned = images / 'a' / '4.png'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(turned).save(turned, exif=exif)
    (out / 'shard-00001.npy').unlink()
    with pytest.raises(
        ValueError, match=rf"image '{turned}' has an EXIF orientation or more than 8 bits, .*write the cache anew"
    ):
        write(images, out)
    shutil.copytree(tmp_path / 'new', tmp_path / 'old')
    manifest = (tmp_path / 'old' / 'manifest.json').read_text()
    (tmp_path / 'old' / 'manifest.json').write_text(manifest.replace(DECODING, AS_STORED))
    old, new = (LatentCacheDataset(str(tmp_path / name), images=str(images), flip=False) for name in ('old', 'new'))
    assert new[4]['images'].shape == (3, 32, 32) and old[3]['images'].equal(new[3]['images'])
    with pytest.raises(ValueError, match=rf"image '{turned}' has an EXIF orientation"):
        old[4]


def test_a_new_cache_is_not_continued_with_another_decoding(images: Path, tmp_path: Path, monkeypatch) -> None:
    out = write(images, tmp_path / 'out')
    monkeypatch.setattr(plan, 'DECODING', 'RGB in another way')
    with pytest.raises(ValueError, match=r"other parameters \(crop color: 'RGB, EXIF orientation applied.* there"):
        write(images, out)


def test_a_folder_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    root = image_folder(tmp_path / 'images', {'': 2, 'a': 1})
    with pytest.raises(ValueError, match='2 images lie in it, 1 in its sub-folders'):
        write(root, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    for with_label, paths, classes in ((True, ['a/0.png'], ['a']), (False, ['0.png', '1.png', 'a/0.png'], None)):
        out = tmp_path / str(with_label)
        write_cache(str(root), out, fake_codec(), CacheSpec(**SPEC), num_workers=0, with_label=with_label)
        assert (out / 'samples.txt').read_text().split() == paths and read_manifest(out)['classes'] == classes


def test_a_name_that_is_not_utf8_is_named_before_anything_is_written(tmp_path: Path) -> None:
    root = image_folder(tmp_path / 'images', {'a': 1})
    os.rename(root / 'a' / '0.png', os.fsencode(root / 'a') + b'/caf\xe9.png')
    with pytest.raises(ValueError, match=r"are not UTF-8, such as 'a/caf\\xe9\.png'"):
        write(root, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
