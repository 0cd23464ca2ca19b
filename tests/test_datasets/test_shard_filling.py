"""Decoding, encoding and writing at the same time: order, memory, errors and interruptions."""

import errno
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_codec import fake_codec, image_folder, truncate_jpeg
from torch import Tensor

from usp_mm.datasets.latent_cache.crops import CroppedImages
from usp_mm.datasets.latent_cache.manifest import read_manifest
from usp_mm.datasets.latent_cache.plan import CacheSpec, images_a_call
from usp_mm.datasets.latent_cache.shard_filling import DEPTH
from usp_mm.datasets.latent_cache.shards import ShardWriter, all_shards
from usp_mm.datasets.latent_cache.writer import encode_views, write_cache
from usp_mm.vaes import LatentCodec

SPEC = dict(img_size=32, shard_size=4, encode_batch_size=1)
BEGUN = ['labels.npy', 'plan.json', 'samples.txt']


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp('images'), {'a': 5, 'b': 5})


@pytest.fixture(autouse=True)
def _no_thread_stays() -> None:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == 'shard writer'] == []


def write(images: Path, out: Path, codec: LatentCodec | None = None, num_workers: int = 0, **spec: object) -> Path:
    write_cache(str(images), out, codec or fake_codec(), CacheSpec(**{**SPEC, **spec}), 1, num_workers)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != '.lock'}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != '.lock')


def shards(*numbers: int) -> list[str]:
    return [f'shard-{number:05d}.{suffix}' for number in numbers for suffix in ('json', 'npy')]


def before_each_write(monkeypatch: pytest.MonkeyPatch, action: Callable[[int], None]) -> list[int]:
    """Call `action` with the number of the batch, from 0, before it is written; returns those that were."""
    written, original = [], ShardWriter.write

    def write_batch(self: ShardWriter, moments: Tensor) -> None:
        action(len(written))
        original(self, moments)
        written.append(len(written))

    monkeypatch.setattr(ShardWriter, 'write', write_batch)
    return written


def before_each_call(codec: LatentCodec, action: Callable[[int], None]) -> LatentCodec:
    """Call `action` with the number of the call of the network, from 0 (two a sample), before it."""
    network, encode = codec.network, codec.network.encode

    def call(batch: Tensor) -> Tensor:
        action(network.calls)
        return encode(batch)

    network.encode = call
    return codec


def test_the_bytes_are_those_of_one_step_after_the_other(images: Path, tmp_path: Path) -> None:
    out = write(images, tmp_path / 'out', num_workers=2)
    plan, codec = read_manifest(out), fake_codec()
    crops = CroppedImages(str(images), (out / 'samples.txt').read_text().split(), 32, plan['crop'], 1)
    expected = contents(out)
    for shard in all_shards(out, plan):
        with shard.writer() as writer:
            for row in range(shard.start, shard.start + shard.count):
                writer.write(encode_views(codec, crops[row][None], flip=True, encode_batch_size=1))
    assert len(expected) == 10 and contents(out) == expected


def test_a_batch_is_encoded_while_another_is_written(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = threading.Event()
    before_each_write(monkeypatch, lambda number: assert_(number > 0 or second.wait(60)))
    codec = before_each_call(fake_codec(), lambda call: second.set() if call == 2 else None)
    assert names(write(images, tmp_path / 'out', codec)) == sorted([*BEGUN, 'manifest.json', *shards(0, 1, 2)])


def assert_(condition: bool) -> None:
    assert condition


def test_what_waits_for_the_disk_is_bounded(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, waiting = fake_codec(), []

    def wait(number: int) -> None:
        time.sleep(0.03)  # in which all ten would be encoded
        waiting.append(codec.network.calls // 2 - number)

    before_each_write(monkeypatch, wait)
    write(images, tmp_path / 'out', codec)
    assert max(waiting) == DEPTH + 2 and len(waiting) == 10, 'in writing, waiting, and the one that finds no room'


def fill_disk(number: int) -> None:
    if number == 5:
        raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_full_disk_is_told_as_before_and_leaves_whole_shards(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(write(images, tmp_path / 'whole'))
    with monkeypatch.context() as full:
        written = before_each_write(full, fill_disk)
        with pytest.raises(OSError, match=r'disk is full: needs [0-9,]+ more bytes') as caught:
            write(images, tmp_path / 'out')
    assert caught.value.errno == errno.ENOSPC
    assert written == [0, 1, 2, 3, 4] and names(tmp_path / 'out') == sorted([*BEGUN, *shards(0)])
    assert contents(write(images, tmp_path / 'out')) == expected


def test_a_full_disk_is_one_line(
    images: Path, tiny_vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool_here: Callable
) -> None:
    before_each_write(monkeypatch, fill_disk)
    options = ['--vae', 'tiny', '--vae-path', tiny_vae_folder, '--img-size', 32, '--batch-size', 1, '--shard-size', 4]
    code, printed = tool_here('tools/cache_latents.py', 'write', images, tmp_path / 'out', *options, '--workers', 1)
    told = [line for line in printed.splitlines() if line.startswith('error: ')]
    assert code == 1 and len(told) == 1 and 'Traceback' not in printed
    assert told[0].startswith(f"error: [Errno 28] cannot write into '{tmp_path / 'out'}', the disk is full: needs ")
    assert names(tmp_path / 'out') == sorted([*BEGUN, *shards(0)])


def test_an_error_that_nobody_foresaw_in_a_decoding_process(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = CroppedImages._load

    def broken(self: CroppedImages, index: int) -> object:
        if index == 6:
            raise RuntimeError('out of luck')
        return load(self, index)

    monkeypatch.setattr(CroppedImages, '_load', broken)
    with pytest.raises(RuntimeError, match='out of luck'):
        write(images, tmp_path / 'out', num_workers=1)
    assert names(tmp_path / 'out') == sorted([*BEGUN, *shards(0)])


def test_the_first_of_two_errors_is_told(tmp_path: Path) -> None:
    """As if the stages took turns: the latent of image 1, not image 2 that is decoded meanwhile."""
    root = image_folder(tmp_path / 'images', {'a': 3})
    truncate_jpeg(root / 'a' / '2.jpg')
    (root / 'a' / '2.png').unlink()
    codec = fake_codec()
    encode = codec.network.encode
    codec.network.encode = lambda batch: encode(batch) * (float('nan') if codec.network.calls == 3 else 1.0)
    with pytest.raises(ValueError, match=r"the latent of image 'a/1\.png' is not finite"):
        write(root, tmp_path / 'out', codec)
    assert names(tmp_path / 'out') == BEGUN


def test_interrupted_while_it_encodes(images: Path, tmp_path: Path) -> None:
    def interrupt(call: int) -> None:
        if call == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(images, tmp_path / 'out', before_each_call(fake_codec(), interrupt))
    assert set(names(tmp_path / 'out')) <= {*BEGUN, *shards(0)}
    assert contents(write(images, tmp_path / 'out')) == contents(write(images, tmp_path / 'whole'))


def test_interrupted_while_it_waits_for_the_disk(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first write of the last shard, when all is encoded: that shard does not stay."""
    codec = fake_codec()

    def interrupt(number: int) -> None:
        if number == 8:
            while codec.network.calls < 20:
                time.sleep(0.001)
            time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.05)

    with monkeypatch.context() as interrupted:
        before_each_write(interrupted, interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(images, tmp_path / 'out', codec)
    assert names(tmp_path / 'out') == sorted([*BEGUN, *shards(0, 1)])
    assert contents(write(images, tmp_path / 'out')) == contents(write(images, tmp_path / 'whole'))


def test_a_compiled_encoder_rounds_otherwise_and_is_a_part_of_the_plan(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, 'compile', lambda function: function)
    out = write(images, tmp_path / 'out', fake_codec().compile())
    assert read_manifest(out)['compiled'] is True
    with pytest.raises(ValueError, match='compiled: True there, None now'):
        write(images, out)
    assert 'compiled' not in read_manifest(write(images, tmp_path / 'plain'))


def test_images_a_call_are_those_that_the_cache_was_begun_with(images: Path, tmp_path: Path) -> None:
    usual = [images_a_call(tmp_path / 'new', size, device) for size, device in ((512, 'cpu'), (224, 'cuda:1'), (512, 'cuda'))]
    assert usual == [16, 64, 16]
    out = write(images, tmp_path / 'out', encode_batch_size=3)
    assert images_a_call(out, 32, 'cpu') == images_a_call(out, 32, 'cuda') == 3


def test_a_batch_of_nothing_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='batch_size=0 must be a positive number of images'):
        write_cache(str(images), tmp_path / 'out', fake_codec(), CacheSpec(**SPEC), batch_size=0)
    assert not (tmp_path / 'out').exists()
