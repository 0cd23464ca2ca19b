"""A latent cache that holds a teacher's tokens, or the images that it was written from, beside the latents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_codec import fake_codec, image_folder
from helpers.held_lock import held_elsewhere
from helpers.teacher_files import DIM, MODEL, teacher_folder
from torch import Tensor

from usp_mm.datasets import EpochIndex, LatentCacheDataset
from usp_mm.datasets.latent_cache import collate_latents, read_manifest
from usp_mm.datasets.latent_cache.crops import CroppedImages
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.verify import describe_cache, verify_cache
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.models.repa import Teacher, build_teacher

SPEC = dict(img_size=32, dtype='float32', shard_size=3, encode_batch_size=4)


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp('images'), {'a': 4, 'b': 4})


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher_folder(tmp_path_factory.mktemp('teacher') / MODEL)


def teacher_of(weights: Path, **kwargs) -> Teacher:
    return build_teacher(dict(name=MODEL, path=str(weights), **kwargs), 32)


def write(images: Path, out: Path, teacher: Teacher | None, batch_size: int = 2, **spec) -> Path:
    write_cache(str(images), out, fake_codec(), CacheSpec(**{**SPEC, **spec}), batch_size, 0, teacher=teacher)
    return out


@pytest.fixture(scope='module')
def cache(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(images, tmp_path_factory.mktemp('cache'), teacher_of(weights))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def batch_of(dataset: LatentCacheDataset, epoch: int) -> list[dict]:
    return dataset.__getitems__([EpochIndex(i, epoch, 1) for i in range(len(dataset))])


def stacked(batch: list[dict], key: str) -> Tensor:
    return torch.stack([sample[key] for sample in batch])


@pytest.mark.parametrize(
    ('dtype', 'stored', 'tolerance'),
    [('float32', torch.float32, 1e-5), ('float16', torch.float16, 2e-3), ('bfloat16', torch.bfloat16, 2e-2)],
)
@pytest.mark.parametrize('random_crops', [0, 2])
def test_cached_tokens_are_the_online_ones(images, weights, tmp_path, dtype, stored, tolerance, random_crops) -> None:
    """Of the very crop and flip whose latent it is, whichever view is drawn."""
    teacher = teacher_of(weights)
    out = write(images, tmp_path / 'out', teacher, dtype=dtype, random_crops=random_crops)
    dataset = LatentCacheDataset(str(out), teacher=MODEL, images=str(images))
    for epoch in range(3):
        batch = batch_of(dataset, epoch)
        tokens, pixels = stacked(batch, 'teacher_tokens'), stacked(batch, 'images')
        assert (tokens.dtype, tokens.shape) == (stored, (8, 4, DIM)) and (pixels.dtype, pixels.shape[1:]) == (
            torch.uint8,
            (3, 32, 32),
        )
        online = teacher.tokens(pixels)
        torch.testing.assert_close(tokens.float(), online, rtol=0, atol=tolerance * float(online.abs().max()))
        moments = fake_codec().encode((pixels.float() - 127.5) / 127.5)
        torch.testing.assert_close(stacked(batch, 'inputs'), moments, rtol=0, atol=0.1)


def test_manifest_names_the_teacher(cache: Path, weights: Path) -> None:
    teacher = read_manifest(cache)['teacher']
    assert teacher == dict(teacher_of(weights).facts(), stored='float32')
    assert (teacher['name'], teacher['dim'], teacher['grid'], teacher['size']) == (MODEL, DIM, [2, 2], 32)
    summary = describe_cache(cache)
    assert summary['teacher_bytes'] == sum(path.stat().st_size for path in cache.glob('teacher-*.npy'))
    assert summary['bytes_per_image'] == sum(path.stat().st_size for path in cache.glob('shard-*.npy')) / 8


def test_bytes_do_not_depend_on_batches_and_tokens_can_come_later(images, weights, cache, tmp_path) -> None:
    assert contents(write(images, tmp_path / 'whole', teacher_of(weights), batch_size=5)) == contents(cache)
    later = write(images, tmp_path / 'later', None)
    latents = contents(later)
    changed = {path.name: path.stat().st_mtime_ns for path in later.glob('shard-*')}
    write(images, later, teacher_of(weights))
    assert contents(later) == contents(cache)
    assert {path.name: path.stat().st_mtime_ns for path in later.glob('shard-*')} == changed
    assert {name for name in contents(later) if name not in latents} == {
        f'teacher-0000{i}.{end}' for i in range(3) for end in ('npy', 'json')
    }


def test_latents_and_tokens_come_from_one_pass_over_the_images(images, weights, tmp_path, monkeypatch) -> None:
    decoded, decode = [], CroppedImages.__getitem__
    monkeypatch.setattr(CroppedImages, '__getitem__', lambda self, index: decoded.append(index) or decode(self, index))
    write(images, tmp_path / 'out', teacher_of(weights))
    assert decoded == list(range(8))


class Stopping(Teacher):
    """Ends the process, as it were, after so many calls."""

    def tokens(self, images: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().tokens(images)


def test_latents_are_read_while_tokens_are_added_and_a_wrong_teacher_costs_no_latents(images, weights, cache, tmp_path) -> None:
    out = write(images, tmp_path / 'out', None)
    stopped = teacher_of(weights)
    stopped.__class__, stopped.left = Stopping, 6  # an empty image, and the first shard's two batches in two views
    with pytest.raises(KeyboardInterrupt):
        write(images, out, stopped)
    assert [path.name for path in sorted(out.glob('teacher-*.npy'))] == ['teacher-00000.npy']
    assert len(batch_of(LatentCacheDataset(str(out)), 0)) == 8 and verify_cache(out) == {}
    with pytest.raises(ValueError, match='holds no tokens of a teacher'):
        LatentCacheDataset(str(out), teacher=MODEL)
    for other in (None, teacher_of(weights, size=64)):
        with pytest.raises(ValueError, match=r'\(teacher \w+: .*\): repeat it, .* or delete teacher-\*\.npy .* latents stay'):
            write(images, out, other)
    for path in out.glob('teacher-*'):
        path.unlink()
    changed = {path.name: path.stat().st_mtime_ns for path in out.glob('shard-*')}
    assert read_manifest(write(images, out, teacher_of(weights, size=64)))['teacher']['grid'] == [4, 4]
    for path in out.glob('teacher-*'):
        path.unlink()
    write(images, out, None)
    assert contents(out) == contents(write(images, tmp_path / 'plain', None)), 'as if there had been no teacher'
    write(images, out, teacher_of(weights))
    assert contents(out) == contents(cache)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob('shard-*')} == changed


def test_damage_is_found_and_repaired(images, weights, cache, tmp_path) -> None:
    out, expected = tmp_path / 'out', contents(cache)
    out.mkdir()
    for name, content in expected.items():
        (out / name).write_bytes(content)
    damaged = bytearray(expected['teacher-00001.npy'])
    damaged[300] ^= 4
    (out / 'teacher-00001.npy').write_bytes(damaged)
    assert list(verify_cache(out, delete_bad=True)) == ['teacher-00001.npy']
    write(images, out, teacher_of(weights))
    assert contents(out) == expected and verify_cache(out) == {}
    (out / 'teacher-00002.npy').unlink()
    assert len(LatentCacheDataset(str(out))) == 8, 'latents are read without the tokens'
    with pytest.raises(ValueError, match=r'teacher-00002\.npy missing or of the wrong size'):
        LatentCacheDataset(str(out), teacher=MODEL)


def test_another_teacher_is_refused(images, weights, cache, tmp_path) -> None:
    with pytest.raises(ValueError, match=r'with other parameters \(teacher size: 32 there, 64 now; teacher grid'):
        write(images, cache, teacher_of(weights, size=64))
    with pytest.raises(
        ValueError, match="holds the tokens of teacher 'test_vit', the config asks for 'dinov2-b': name that one"
    ):
        LatentCacheDataset(str(cache), teacher='dinov2-b')
    plain = write(images, tmp_path / 'plain', None)
    with pytest.raises(ValueError, match=r'holds no tokens of a teacher, .*add them with .* --teacher test_vit'):
        LatentCacheDataset(str(plain), teacher=MODEL)
    with pytest.raises(FileNotFoundError, match=r"no '.*a/0\.png', the first image of latent cache"):
        LatentCacheDataset(str(plain), images=str(tmp_path))


def test_tokens_that_cannot_be_stored(images, weights, tmp_path) -> None:
    teacher = teacher_of(weights)
    teacher.network.norm.weight.data.fill_(1e6)
    with pytest.raises(ValueError, match=r"teacher token of image 'a/0\.png' reaches .* beyond the range of dtype float16"):
        write(images, tmp_path / 'out', teacher, dtype='float16')
    teacher = teacher_of(weights, dtype='bfloat16')
    teacher.network.norm.weight.data.fill_(float('nan'))
    with pytest.raises(ValueError, match=r"teacher token of image 'a/0\.png' is not finite: .* wider dtype than bfloat16"):
        write(images, tmp_path / 'nan', teacher)


def test_a_second_writer_changes_nothing(images, weights, tmp_path) -> None:
    out = tmp_path / 'out'
    stopped = teacher_of(weights)
    stopped.__class__, stopped.left = Stopping, 2
    with pytest.raises(KeyboardInterrupt):
        write(images, out, stopped)
    before = contents(out)
    with held_elsewhere(out / '.lock'):
        with pytest.raises(ValueError, match='another process is writing latent cache'):
            write(images, out, teacher_of(weights, size=64))
    assert contents(out) == before


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_collated_without_mixing_rows(images, weights, tmp_path, dtype) -> None:
    dataset = LatentCacheDataset(
        str(write(images, tmp_path, teacher_of(weights), dtype=dtype)), teacher=MODEL, images=str(images)
    )
    batch = dataset.__getitems__([5, 0, 3])
    for order in (batch, batch[::-1]):
        collated = collate_latents(order)
        for key in ('inputs', 'teacher_tokens', 'images'):
            assert torch.equal(collated[key], stacked(order, key))
        assert [int(sample.sample_idx) for sample in collated['data_samples']] == [s['data_samples'].sample_idx for s in order]
    whole = collate_latents(batch)['teacher_tokens']
    assert whole.data_ptr() == batch[0]['teacher_tokens'].data_ptr(), 'read together, not copied'
    assert np.unique(whole.float().numpy()).size > 100
