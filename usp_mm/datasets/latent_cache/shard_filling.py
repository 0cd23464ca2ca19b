"""Images decoded, encoded and written at the same time: processes decode, the main thread encodes, another one writes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from .crops import CroppedImages, stack_or_error
from .labels import read_sample_paths
from .shards import Shard

#: A shard, and what turns images [N, K, 3, H, W] on the device into what it holds of them, [N, V, …].
Job = tuple[Shard, Callable[[Tensor], Tensor]]
#: Batches that are encoded and not written yet: enough that neither side waits for the other's last one, and all that
#: a slow disk lets pile up in memory.
DEPTH = 2


@dataclass
class StageTimes:
    """Seconds that filling shards took, in all and for each stage.

    Attributes:
        encode: Seconds in which the device encoded; on a GPU they include the copies of images and moments.
        write: Seconds in which the writing thread coded, summed up and wrote.
        total: Seconds from the first image to the last file.
        images: Number of images.
    """

    images: int = 0
    encode: float = 0.0
    write: float = 0.0
    total: float = 0.0


class OnHost:
    """Tensors that are being copied from the device to (pinned) memory. They have arrived when `wait` returns."""

    def __init__(self, device: torch.device, encode: Callable[[], list[Tensor]]) -> None:
        self._start = self._end = None
        start = time.perf_counter()
        if device.type == 'cuda':
            stream = torch.cuda.current_stream(device)
            self._start, self._end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
            self._start.record(stream)
        self.tensors = [_to_host(values) for values in encode()]
        if self._end is not None:
            self._end.record(stream)
        self._seconds = time.perf_counter() - start

    def wait(self) -> float:
        """Wait for the tensors, and return the seconds that the device worked on them."""
        if self._start is None or self._end is None:
            return self._seconds
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1000


def _to_host(values: Tensor) -> Tensor:
    if values.device.type != 'cuda':
        return values.cpu()
    # PyTorch keeps pinned memory and hands it out again once the copies into it have ended
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


class _Abandoned(Exception):
    """Raised when no more batches come for a shard that is not full."""


class ShardThread:
    """A thread that fills shards with the batches of `put`, in that order, so that nobody waits for the disk and the checksums.

    It is a context manager: leaving it waits until all is on disk, and raises the error of the thread, as the next `put` does.
    If it is left because of an error, what it was given is still written (not after an interruption), and a shard that is not
    full is removed.

    Args:
        groups: Groups of shards that are filled together; the shards of a group have equally many samples.
        plan: Plan of the cache.
        times: Object to which the seconds are added.
    """

    def __init__(self, groups: Sequence[Sequence[Shard]], plan: dict[str, Any], times: StageTimes) -> None:
        self._groups, self._plan, self._times = groups, plan, times
        self._batches: SimpleQueue[tuple[OnHost, list[str]] | None] = SimpleQueue()  # None: no more come
        self._room = threading.Semaphore(DEPTH)
        self._interrupted, self._done = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name='shard writer', daemon=True)

    def put(self, values: OnHost, paths: list[str]) -> None:
        """Hand over a batch: values [N, V, …] for each shard of the group, and the N images' paths. Waits for room."""
        self._room.acquire()
        self._batches.put((values, paths))
        if self._error is not None:
            raise self._error

    def __enter__(self) -> 'ShardThread':
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is not None and not isinstance(error, Exception):
                self._interrupted.set()
            self._end()
        except BaseException:  # interrupted while it waited
            self._interrupted.set()
            self._end()
            raise
        if self._error not in (None, error) and not self._interrupted.is_set():
            raise self._error  # of an earlier batch than the error in the block

    def _end(self) -> None:
        self._batches.put(None)
        self._done.wait()  # `join` believes that the thread has ended once a signal interrupts it (CPython 3.11)
        self._thread.join()

    def _run(self) -> None:
        try:
            for shards in self._groups:
                self._fill(shards)
        except _Abandoned:
            return
        except BaseException as error:  # for the main thread, which must not wait for room in the meantime
            self._error = error
            while self._batches.get() is not None:
                self._room.release()
        finally:
            self._done.set()

    def _fill(self, shards: Sequence[Shard]) -> None:
        with ExitStack() as files:
            writers = [files.enter_context(shard.writer()) for shard in shards]
            left = shards[0].count
            while left:
                batch = self._batches.get()
                self._room.release()
                if batch is None or self._interrupted.is_set():
                    raise _Abandoned
                values, paths = batch
                self._times.encode += values.wait()
                start = time.perf_counter()
                for shard, writer, views in zip(shards, writers, values.tensors, strict=True):
                    check_storable(views, shard, paths, self._plan)
                    writer.write(views)
                left -= len(paths)
                self._times.images += len(paths)
                self._times.write += time.perf_counter() - start


def fill_shards(
    jobs: Sequence[Job],
    plan: dict[str, Any],
    data_root: str,
    batch_size: int,
    num_workers: int,
    device: torch.device | str,
    title: str | None = None,
) -> StageTimes:
    """Fill shards. The shards of latents and of tokens of the same images are filled together, so that images are decoded once.

    Args:
        jobs: The shards, in order, each with its encoder.
        plan: Plan of the cache.
        data_root: Folder of the images.
        batch_size: Images decoded and sent to the device at a time.
        num_workers: Processes that decode images.
        device: Device of the encoders.
        title: Title of a progress bar; None draws none.

    Raises:
        ValueError: An image can't be decoded, or the output of an encoder cannot be stored.
        OSError: A file cannot be written.
    """
    times, device = StageTimes(), torch.device(device)
    if not jobs:
        return times
    together: dict[int, list[Job]] = {}
    for shard, encode in jobs:
        together.setdefault(shard.start, []).append((shard, encode))
    groups = list(together.values())
    paths = read_sample_paths(jobs[0][0].path.parent, plan)
    images = CroppedImages(data_root, paths, plan['image_size'], plan['crop'], plan['crops'])
    start = time.perf_counter()
    with ExitStack() as held:
        held.enter_context(_current(device))
        batches = _decoded(images, groups, batch_size, num_workers, pin=device.type == 'cuda')  # processes before threads
        total = sum(group[0][0].count for group in groups)
        progress = held.enter_context(tqdm(total=total, unit='img', disable=title is None, desc=title))
        thread = held.enter_context(ShardThread([[shard for shard, _ in group] for group in groups], plan, times))
        for group in groups:
            for rows in _rows(group, batch_size):
                values = _encoded(next(batches), group, device)
                thread.put(values, paths[rows.start : rows.stop])
                progress.update(len(rows))
    times.total = time.perf_counter() - start
    return times


def _encoded(images: Tensor | ValueError, group: Sequence[Job], device: torch.device) -> OnHost:
    if isinstance(images, ValueError):
        raise images

    def encode() -> list[Tensor]:
        moved = images.to(device, non_blocking=True)
        return [encode(moved) for _, encode in group]

    return OnHost(device, encode)


def _decoded(
    images: CroppedImages, groups: Sequence[Sequence[Job]], batch_size: int, num_workers: int, pin: bool
) -> Iterator[Tensor | ValueError]:
    loader = DataLoader(
        images,
        batch_sampler=[list(rows) for group in groups for rows in _rows(group, batch_size)],
        num_workers=num_workers,
        collate_fn=stack_or_error,
        pin_memory=pin,
    )
    return iter(loader)


def _rows(group: Sequence[Job], batch_size: int) -> list[range]:
    """The samples of a group of shards, in batches."""
    first = group[0][0]
    end = first.start + first.count
    return [range(start, min(start + batch_size, end)) for start in range(first.start, end, batch_size)]


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Context in which `device` is the current GPU, to which pinned memory and copies belong."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def check_storable(values: Tensor, shard: Shard, paths: list[str], plan: dict[str, Any]) -> None:
    """Raise a ValueError that names the image if values [N, V, …] are not finite or would not be when stored."""
    bad = shard.storage.unstorable(values.flatten(0, 1)).view(len(paths), -1).any(1)
    if not bad.any():
        return
    first = int(bad.int().argmax())
    what, by, dtype = ('latent', 'VAE', plan['encode_dtype'])
    if shard.kind == 'teacher':
        what, by, dtype = 'teacher token', 'teacher', plan['teacher']['dtype']
    if not values[first].isfinite().all():
        raise ValueError(
            f"the {what} of image '{paths[first]}' is not finite: check the image and the {by}'s weights, "
            f'or encode in a wider dtype than {dtype}'
        )
    raise ValueError(
        f"the {what} of image '{paths[first]}' reaches {values[first].abs().max():.4g}, "
        f'beyond the range of dtype {plan["dtype"]}: write the cache in bfloat16 or float32, into another folder'
    )
