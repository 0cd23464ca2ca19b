"""Decoding, encoding and writing a latent cache, one after the other and at the same time, for `benchmark.py cache`."""

import argparse
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmark_data import photos, write_random_vae

STAGES = ('decode', 'encode', 'write')


@dataclass
class World:
    """What is encoded, by what and whereto.

    Attributes:
        images: folder of JPEG files.
        out: folder of the cache, whose plan is written.
        plan: of it.
        encode: uint8[N, 1, 3, H, W] on the device -> float32[N, 2, 2C, h, w] there.
        args: the command's.
        device: of the VAE.
    """

    images: Path
    out: Path
    plan: dict[str, Any]
    encode: Any
    args: argparse.Namespace
    device: Any
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def loader(self) -> Any:
        """Decodes in other processes, batch by batch, as the writer did that encoded and wrote in turn."""
        from torch.utils.data import DataLoader

        from usp_mm.datasets.latent_cache.crops import CroppedImages, stack_or_error

        paths = (self.out / 'samples.txt').read_text().split('\n')[:-1]
        crops = CroppedImages(str(self.images), paths, self.plan['image_size'], self.plan['crop'], 1)
        return DataLoader(crops, self.args.batch_size, num_workers=self.args.workers, collate_fn=stack_or_error)

    def views(self, images: Any) -> Any:
        """Encode a batch, there and back."""
        return self.encode(images.to(self.device)).cpu()

    def shard(self) -> Any:
        """The only one."""
        from usp_mm.datasets.latent_cache.shards import all_shards

        return all_shards(self.out, self.plan)[0]


def run_stages(args: argparse.Namespace) -> dict[str, Any]:
    """The rows, one a stage, and the rates of both orders."""
    import torch

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        world = _make_world(Path(folder), args)
        world.encode(torch.zeros(args.batch_size, 1, 3, args.img_size, args.img_size, dtype=torch.uint8, device=world.device))
        alone = measure_alone(world)
        before = measure_in_turn(world)
        content = world.shard().path.read_bytes()
        now, times = measure_pipeline(world)
        same = world.shard().path.read_bytes() == content
    views = 2 * args.num_samples
    busy = dict(decode=alone['decode'], encode=times.encode, write=times.write)
    rows = [
        {
            'stage': stage,
            'alone, views/s': views / alone[stage],
            'busy in turn': f'{100 * (alone["decode"] if stage == "decode" else world.busy[stage]) / before:.0f} %',
            'busy in the pipeline': f'{100 * busy[stage] / now:.0f} %',
        }
        for stage in STAGES
    ]
    rates = dict(in_turn=round(views / before, 1), pipeline=round(views / now, 1))
    waits = dict(in_turn=round(1 - world.busy['encode'] / before, 3), pipeline=round(1 - times.encode / now, 3))
    return {
        'rows': rows,
        'views/s': rates,
        'speed-up': round(before / now, 3),
        'share of the time that the encoder waits': waits,
        'same bytes': same,
        'data': f'{args.num_samples} JPEG images at {args.img_size} px and their mirror images, untrained VAE {args.encode}, '
        f'{args.workers} decoding processes',
    }


def _make_world(folder: Path, args: argparse.Namespace) -> World:
    import torch

    from usp_mm.datasets.folder import scan_image_folder
    from usp_mm.datasets.latent_cache.plan import CacheSpec, begin, make_plan
    from usp_mm.datasets.latent_cache.writer import encode_views
    from usp_mm.vaes import build_codec

    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    write_random_vae(folder / 'vae', args.encode)
    codec = build_codec(args.encode, path=folder / 'vae', dtype=args.encode_dtype, compile=args.compile).to(device)
    images, out = photos(folder, args.num_samples, args.img_size), folder / 'cache'
    out.mkdir()
    spec = CacheSpec(args.img_size, encode_dtype=args.encode_dtype, encode_batch_size=args.batch_size, shard_size=2**30)
    plan, files = make_plan(scan_image_folder(str(images)), codec, spec)
    begin(out, plan, files)
    encode = partial(encode_views, codec, flip=True, encode_batch_size=args.batch_size)
    return World(images, out, plan, encode, args, device)


def measure_alone(world: World) -> dict[str, float]:
    """Seconds that each stage takes for all images with nothing else to do."""
    start = time.perf_counter()
    batches = list(world.loader())
    decode = time.perf_counter() - start
    start = time.perf_counter()
    encoded = [world.views(images) for images in batches]
    encode = time.perf_counter() - start
    return dict(decode=decode, encode=encode, write=_write(world, encoded))


def _write(world: World, encoded: Iterable[Any]) -> float:
    start = time.perf_counter()
    with world.shard().writer() as writer:
        for views in encoded:
            _write_batch(world, writer, views)
    return time.perf_counter() - start


def _write_batch(world: World, writer: Any, views: Any) -> None:
    from usp_mm.datasets.latent_cache.shard_filling import check_storable

    check_storable(views, world.shard(), [''] * len(views), world.plan)
    writer.write(views)


def measure_in_turn(world: World) -> float:
    """Seconds of encoding a batch, then writing it, then waiting for the next."""
    start = time.perf_counter()
    with ExitStack() as files:
        writer = files.enter_context(world.shard().writer())
        for images in world.loader():
            begun = time.perf_counter()
            views = world.views(images)
            encoded = time.perf_counter()
            _write_batch(world, writer, views)
            world.busy['encode'] += encoded - begun
            world.busy['write'] += time.perf_counter() - encoded
        begun = time.perf_counter()
    end = time.perf_counter()
    world.busy['write'] += end - begun  # the disk
    return end - start


def measure_pipeline(world: World) -> tuple[float, Any]:
    """Seconds of what `tools/cache_latents.py write` does, and its stages' times."""
    from usp_mm.datasets.latent_cache.shard_filling import fill_shards

    args, start = world.args, time.perf_counter()
    jobs = [(world.shard(), world.encode)]
    times = fill_shards(jobs, world.plan, str(world.images), args.batch_size, args.workers, world.device)
    return time.perf_counter() - start, times
