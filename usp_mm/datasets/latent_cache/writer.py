"""Encode a folder of images into a latent cache, alone or as one of several processes."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import MMLogger
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from usp_mm.files import explain_full_disk, locked
from usp_mm.functional.precision import tf32
from usp_mm.vaes import LatentCodec

from ..rank0 import decide_on_rank0, run_on_rank0
from .crops import CroppedImages, stack_or_error
from .manifest import LOCK, SAMPLES
from .plan import CacheSpec, TokenEncoder, finish, prepare
from .shards import Shard, all_shards, token_shards

#: A shard, and what turns images [N, K, 3, H, W] into what it holds of them, [N, V, …].
Job = tuple[Shard, Callable[[Tensor], Tensor]]


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
    """Write the latent cache of an image folder, or what is missing of it.

    Under an initialised process group every process calls this; shard i is written by rank
    i modulo the number of processes, and rank 0 writes the manifest when all shards are whole. The
    bytes do not depend on the number of processes, the batch size or interruptions. (Float32
    convolutions on a CPU also round by the number of threads, on a GPU by its model.)

    Args:
        data_root: one sub-folder a class, or a flat folder of images.
        out: the cache's folder.
        codec: built with `spec.encode_dtype` ('float32' for 'tf32').
        spec: what to cache.
        batch_size: images decoded and sent to the device at a time.
        num_workers: processes that decode images.
        device: of the VAE and the teacher.
        teacher: whose tokens of every view to cache too; also in a cache that has none yet.
        with_label: how the folder is read, see `scan_image_folder`.

    Returns:
        The plan, whose keys are in the manifest too.

    Raises:
        ValueError: an argument is invalid, `out` was begun with other parameters, an image can't
            be decoded or its latent not be stored.
        FileNotFoundError: no images.
        OSError: the disk is, or would get, full.
    """
    out = Path(out)
    rank, world_size = get_dist_info()
    logger = MMLogger.get_current_instance()
    with ExitStack() as held:
        plan, complete = decide_on_rank0(lambda: _begin(held, data_root, out, codec, spec, teacher, with_label))
        if complete:
            logger.info(f"latent cache '{out}' is complete already: nothing to do")
            return plan
        shards, tokens = all_shards(out, plan), token_shards(out, plan)
        mine, my_tokens = ([s for s in kind[rank::world_size] if not s.is_whole()] for kind in (shards, tokens))
        if rank == 0 and len(shards) < world_size:
            logger.warning(f'{len(shards)} shards occupy only as many of {world_size} processes: use a smaller shard size')
        held.enter_context(explain_full_disk(out, lambda: sum(s.num_bytes for s in mine + my_tokens if not s.is_whole())))
        with tf32(spec.encode_dtype == 'tf32'):
            codec.to(device)
            views = dict(flip=plan['flip'], encode_batch_size=plan['encode_batch_size'])
            jobs: list[Job] = [(shard, partial(encode_views, codec, **views)) for shard in mine]
            if teacher is not None:
                jobs += [(shard, partial(teacher_views, teacher.to(device), device, **views)) for shard in my_tokens]
            _write_shards(jobs, plan, data_root, batch_size, num_workers, show=rank == 0)
        barrier()
        run_on_rank0(lambda: finish(out, plan))
    if rank == 0:
        logger.info(f"latent cache '{out}' is complete: {plan['num_samples']} samples in {len(shards)} shards")
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
    """`prepare`, with a cache that is not complete locked until `held` closes."""
    taken = f"another process is writing latent cache '{out}': wait for it or stop it"
    lock = lambda: held.enter_context(locked(out / LOCK, taken))  # noqa: E731
    return prepare(data_root, out, codec, spec, teacher, lock, with_label)


def _write_shards(jobs: list[Job], plan: dict[str, Any], data_root: str, batch_size: int, num_workers: int, show: bool) -> None:
    """Fill shards; those of the same images, latents and tokens, together, so that images are decoded once."""
    if not jobs:
        return
    together: dict[int, list[Job]] = {}
    for shard, encode in jobs:
        together.setdefault(shard.start, []).append((shard, encode))
    groups = [(job[0][0].start, job[0][0].count, job) for job in together.values()]
    folder = jobs[0][0].path.parent
    paths = (folder / SAMPLES).read_text().split('\n')[:-1]
    loader = DataLoader(
        CroppedImages(data_root, paths, plan['image_size'], plan['crop'], plan['crops']),
        batch_sampler=[
            range(start, min(start + batch_size, first + count))
            for first, count, _ in groups
            for start in range(first, first + count, batch_size)
        ],
        num_workers=num_workers,
        collate_fn=stack_or_error,
    )
    batches = iter(loader)
    with tqdm(total=sum(count for _, count, _ in groups), unit='img', disable=not show, desc='encoding') as progress:
        for start, count, group in groups:
            with ExitStack() as files:
                writers = [(shard, encode, files.enter_context(shard.writer())) for shard, encode in group]
                for _ in range(math.ceil(count / batch_size)):
                    images = next(batches)
                    if isinstance(images, ValueError):
                        raise images
                    names = paths[start : start + len(images)]
                    for shard, encode, writer in writers:
                        views = encode(images)
                        check_storable(views, shard, names, plan)
                        writer.write(views)
                    start += len(images)
                    progress.update(len(images))


def encode_views(codec: LatentCodec, images: Tensor, flip: bool, encode_batch_size: int) -> Tensor:
    """Moments of each crop and, after it, of its mirror image.

    Args:
        codec: the VAE.
        images: uint8[N, K, 3, H, W].
        flip: whether to encode the mirror images.
        encode_batch_size: of every call of the VAE.

    Returns:
        float32[N, V, 2C, h, w] on the CPU.
    """
    return _views(lambda chunk: codec.encode((chunk.float() - 127.5) / 127.5), images.to(codec.device), flip, encode_batch_size)


def teacher_views(
    teacher: TokenEncoder, device: torch.device | str, images: Tensor, flip: bool, encode_batch_size: int
) -> Tensor:
    """A teacher's tokens of the views of `encode_views`: uint8[N, K, 3, H, W] -> float32[N, V, L, E] on the CPU."""
    return _views(teacher.tokens, images.to(device), flip, encode_batch_size)


def _views(encode: Callable[[Tensor], Tensor], images: Tensor, flip: bool, batch_size: int) -> Tensor:
    views = []
    for crop in images.unbind(1):
        for view in [crop, crop.flip(-1)] if flip else [crop]:
            views.append(torch.cat([_encode_filled(encode, chunk, batch_size) for chunk in view.split(batch_size)]))
    return torch.stack(views, dim=1).cpu()


def _encode_filled(encode: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    """What `encode` makes of at most `batch_size` images, from a call with exactly as many."""
    filling = images[-1:].expand(batch_size - len(images), -1, -1, -1)
    return encode(torch.cat([images, filling]))[: len(images)]


def check_storable(values: Tensor, shard: Shard, paths: list[str], plan: dict[str, Any]) -> None:
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
