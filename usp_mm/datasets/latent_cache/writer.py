"""Encode a folder of images into a latent cache, alone or as one of several processes."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, get_dist_info
from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.fileio.atomic import explain_full_disk
from usp_mm.fileio.locks import locked
from usp_mm.functional.precision import tf32
from usp_mm.vaes import LatentCodec

from ..main_process import decide_on_rank0, run_on_rank0
from .manifest import LOCK
from .plan import CacheSpec, TokenEncoder, finish, prepare
from .shard_filling import Job, StageTimes, fill_shards
from .shards import Shard, all_shards, token_shards


def write_cache(
    data_root: str,
    out: str | Path,
    codec: LatentCodec,
    spec: CacheSpec,
    batch_size: int = 64,
    num_workers: int = 2,
    device: str = 'cpu',
    teacher: TokenEncoder | None = None,
    with_label: bool | None = None,
) -> dict[str, Any]:
    """Write the latent cache of an image folder, or the missing part of it.

    Under an initialised process group every process calls this; shard i is written by rank
    i modulo the number of processes, and rank 0 writes the manifest when all shards are whole. The
    bytes do not depend on the number of processes, the batch size or interruptions. (Float32
    convolutions on a CPU also round by the number of threads, on a GPU by its model.) Images are decoded, encoded and
    written at the same time, see `fill_shards`.

    Args:
        data_root: One sub-folder a class, or a flat folder of images.
        out: The cache's folder.
        codec: Built with `spec.encode_dtype` ('float32' for 'tf32').
        spec: What to cache.
        batch_size: Images decoded and sent to the device at a time.
        num_workers: Processes that decode images.
        device: Device of the VAE and the teacher.
        teacher: Encoder whose tokens of every view are cached too. They can be added to a cache that has none yet.
        with_label: How the folder is read, see `scan_image_folder`.

    Returns:
        The plan, whose keys are in the manifest too.

    Raises:
        ValueError: An argument is invalid, `out` was begun with other parameters, an image can't
            be decoded or its latent not be stored.
        FileNotFoundError: No images.
        OSError: The disk is, or would get, full.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size} must be a positive number of images')
    out = Path(out)
    rank, world_size = get_dist_info()
    with ExitStack() as held:
        plan, complete = decide_on_rank0(lambda: _begin(held, data_root, out, codec, spec, teacher, with_label))
        if complete:
            MMLogger.get_current_instance().info(f"latent cache '{out}' is complete already: nothing to do")
            return plan
        shards, tokens = all_shards(out, plan), token_shards(out, plan)
        mine, my_tokens = ([s for s in kind[rank::world_size] if not s.is_whole()] for kind in (shards, tokens))
        _warn_of_idle(rank, len(shards), world_size)
        held.enter_context(explain_full_disk(out, lambda: sum(s.num_bytes for s in mine + my_tokens if not s.is_whole())))
        with tf32(spec.encode_dtype == 'tf32'):
            jobs = _jobs(mine, my_tokens, codec, teacher, plan, device)
            times = fill_shards(jobs, plan, data_root, batch_size, num_workers, device, _title(rank, world_size))
        everyones = all_gather_object(times)  # when all shards are whole
        run_on_rank0(lambda: _finish(out, plan, len(shards), everyones))
    barrier()
    return plan


def _begin(
    held: ExitStack,
    data_root: str,
    out: Path,
    codec: LatentCodec,
    spec: CacheSpec,
    teacher: TokenEncoder | None,
    with_label: bool | None,
) -> tuple[dict[str, Any], bool]:
    """Call `prepare`; a cache that is not complete is locked until `held` closes."""
    taken = f"another process is writing latent cache '{out}': wait for it or stop it"
    lock = lambda: held.enter_context(locked(out / LOCK, taken))  # noqa: E731
    return prepare(data_root, out, codec, spec, teacher, lock, with_label)


def _warn_of_idle(rank: int, num_shards: int, world_size: int) -> None:
    if rank == 0 and num_shards < world_size:
        MMLogger.get_current_instance().warning(
            f'{num_shards} shards occupy only as many of {world_size} processes: use a smaller shard size'
        )


def _jobs(
    shards: Sequence[Shard],
    tokens: Sequence[Shard],
    codec: LatentCodec,
    teacher: TokenEncoder | None,
    plan: dict[str, Any],
    device: str,
) -> list[Job]:
    """Shards of latents and of a teacher's tokens, each with its encoder, which lies on the device."""
    codec.to(device)
    views = dict(flip=plan['flip'], encode_batch_size=plan['encode_batch_size'])
    jobs: list[Job] = [(shard, partial(encode_views, codec, **views)) for shard in shards]
    if teacher is not None:
        jobs += [(shard, partial(teacher_views, teacher.to(device), **views)) for shard in tokens]
    return jobs


def _finish(out: Path, plan: dict[str, Any], num_shards: int, everyones: Sequence[StageTimes]) -> None:
    finish(out, plan)
    logger = MMLogger.get_current_instance()
    logger.info(f"latent cache '{out}' is complete: {plan['num_samples']} samples in {num_shards} shards")
    if at_work := [times for times in everyones if times.total]:  # the others had nothing to fill
        logger.info(speed_line(at_work))


def _title(rank: int, world_size: int) -> str | None:
    """Title of the progress bar, which is that of the first process's own images."""
    if rank:
        return None
    return 'encoding' if world_size == 1 else f'encoding, process 1 of {world_size}'


def speed_line(processes: Sequence[StageTimes]) -> str:
    """Images of all processes in the time of the slowest, and the mean share of its time that each was busy."""
    seconds, whole = max(times.total for times in processes), sum(times.total for times in processes)
    images, encode = sum(times.images for times in processes), sum(times.encode for times in processes)
    busy = dict(encoder=100 * encode / whole, writing=100 * sum(times.write for times in processes) / whole)
    idle = seconds > 60 and max(busy.values()) < 90  # in less, starting the processes counts
    hint = ': more workers keep it busier, where there are cores for them' if idle else ''
    by = f' by {len(processes)} processes' if len(processes) > 1 else ''
    rate = f'{images / seconds:,.1f} images/s in {seconds:,.1f} s{by}'
    return f'{rate}, writing {busy["writing"]:.0f} % of the time and the encoder busy {busy["encoder"]:.0f} %{hint}'


def encode_views(codec: LatentCodec, images: Tensor, flip: bool, encode_batch_size: int) -> Tensor:
    """Moments of each crop and, after it, of its mirror image.

    Args:
        codec: The VAE.
        images: uint8[N, K, 3, H, W] on the VAE's device.
        flip: Whether to encode the mirror images.
        encode_batch_size: Number of images in every call of the VAE.

    Returns:
        float32[N, V, 2C, h, w], on the same device.
    """
    return _views(lambda chunk: codec.encode((chunk.float() - 127.5) / 127.5), images, flip, encode_batch_size)


def teacher_views(teacher: TokenEncoder, images: Tensor, flip: bool, encode_batch_size: int) -> Tensor:
    """A teacher's tokens of the views of `encode_views`: uint8[N, K, 3, H, W] -> float32[N, V, L, E]."""
    return _views(teacher.tokens, images, flip, encode_batch_size)


def _views(encode: Callable[[Tensor], Tensor], images: Tensor, flip: bool, batch_size: int) -> Tensor:
    views = []
    for crop in images.unbind(1):
        for view in [crop, crop.flip(-1)] if flip else [crop]:
            views.append(torch.cat([_encode_filled(encode, chunk, batch_size) for chunk in view.split(batch_size)]))
    return torch.stack(views, dim=1)


def _encode_filled(encode: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    """Encode at most `batch_size` images by a call with exactly as many."""
    filling = images[-1:].expand(batch_size - len(images), -1, -1, -1)
    return encode(torch.cat([images, filling]))[: len(images)]
