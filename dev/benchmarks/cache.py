"""The latent cache against one compressed npz a sample, the layout of MAR's and the official USP's cached folder.

The same moments go into both. Reading is a whole epoch in shuffled order by one process on one core, files in the page
cache, the best of several epochs: "fetch" is the data set alone, a batch of its samples at a time; "load" is a DataLoader
without worker processes, which collates them too. Moments are synthetic: the mean is a smooth Gaussian random field plus
white noise, with a deviation of 5 as the Stable Diffusion VAE's; the log-variance lies around -20, and varies smoothly in
space with a deviation of 2.5, with white noise of 1 on top.

With --encode VAE instead: writing a cache from JPEG images through an untrained VAE of that shape. Decoding, encoding and
writing each alone; then "in turn", as a loop that writes a batch before it encodes the next, and "in the pipeline", as
`tools/cache_latents.py write` does; all in one run, into the same bytes. "busy" is the share of the time that a stage is at
work; of decoding, the time that it takes alone.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmark_stages import run_stages

HELP = 'read and write speed and size of the latent cache'
CHANNELS, LATENT_SIZE, STRIDE = 4, 28, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--num-samples', type=int, default=4096, help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, default=256, help='default: %(default)s')
    parser.add_argument('--shard-size', type=int, default=16384, help='samples a shard (default: %(default)s)')
    parser.add_argument(
        '--epochs', type=int, default=10, help='times the data are read; the best counts (default: %(default)s)'
    )
    parser.add_argument(
        '--encode', choices=('tiny', 'sd-f8d4'), metavar='VAE', help='measure the stages of writing: %(choices)s'
    )
    parser.add_argument('--img-size', type=int, default=224, help='of --encode, pixels (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=4, help='of --encode: decoding processes (default: %(default)s)')
    parser.add_argument('--encode-dtype', default='float32', choices=('float32', 'bfloat16'), help='default: %(default)s')
    parser.add_argument('--compile', action='store_true', help='of --encode: torch.compile')
    parser.add_argument('--device', help='of --encode (default: the GPU, else the CPU)')
    parser.add_argument('--folder', type=Path, help='where to write, on the disk to be measured (default: a temporary folder)')


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from usp_mm.datasets.latent_cache.storage import STORAGES

    if args.encode:
        return run_stages(args)
    torch.set_num_threads(1)
    moments = synthetic_moments(args.num_samples)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        reference = measure_npz(Path(folder), moments, args)
        rows = [reference] + [measure_cache(Path(folder), moments, dtype, args) for dtype in STORAGES]
    for row in rows:
        for speed in ('write', 'fetch', 'load'):
            row[f'{speed} ×'] = row[f'{speed} images/s'] / reference[f'{speed} images/s']
        row['size ×'] = row['bytes/image'] / reference['bytes/image']
    return dict(rows=rows, data=f'synthetic moments, {args.num_samples} × 2 views × {list(moments.shape[2:])}')


def synthetic_moments(num: int) -> Any:
    """float32[N, 2, 2C, h, w], a view and its mirror image's."""
    import torch
    from scipy.ndimage import gaussian_filter

    generator = torch.Generator().manual_seed(0)
    shape = (num, CHANNELS, LATENT_SIZE, LATENT_SIZE)

    def white() -> Any:
        return torch.randn(shape, generator=generator)

    def smooth(sigma: float) -> Any:
        field = torch.from_numpy(gaussian_filter(white().numpy(), sigma, axes=(2, 3)))
        return field / field.std()

    mean = 4 * smooth(2.0) + 3 * white()
    logvar = -20 + 2.5 * smooth(1.5) + white()
    moments = torch.cat([mean, logvar], dim=1)
    mirrored = moments.flip(-1) + 0.05 * torch.randn(moments.shape, generator=generator)  # a VAE is not quite equivariant
    return torch.stack([moments, mirrored], dim=1)


def measure_npz(folder: Path, moments: Any, args: argparse.Namespace) -> dict[str, Any]:
    """One compressed file a sample."""
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, Dataset

    folder = folder / 'npz'
    folder.mkdir()
    paths = [folder / f'{i:07d}.npz' for i in range(len(moments))]

    class CachedFolder(Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            with np.load(paths[index]) as data:
                return data['moments' if torch.rand(1) < 0.5 else 'moments_flip'], 0

    def write() -> None:
        for path, (view, mirrored) in zip(paths, moments.numpy(), strict=True):
            np.savez_compressed(path, moments=view, moments_flip=mirrored)

    write_seconds = seconds(write)
    return _row('npz', folder, write_seconds, DataLoader(CachedFolder(), args.batch_size, shuffle=True), args.epochs)


def measure_cache(folder: Path, moments: Any, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    """A latent cache of the given storage dtype."""
    from mmengine.runner import Runner

    from usp_mm.datasets.folder import FolderScan
    from usp_mm.datasets.latent_cache.plan import CacheSpec, begin, finish, make_plan
    from usp_mm.datasets.latent_cache.shards import all_shards

    folder = folder / dtype
    folder.mkdir()
    names = [f'0/{i:07d}.png' for i in range(len(moments))]
    facts = dict(name='synthetic', weight_hash='', channels=CHANNELS, stride=STRIDE, scale=1.0, shift=0.0, compiled=False)
    codec = SimpleNamespace(**facts)
    spec = CacheSpec(img_size=LATENT_SIZE * STRIDE, dtype=dtype, shard_size=args.shard_size)
    plan, files = make_plan(FolderScan(names, [0] * len(names), ('0',)), codec, spec)

    def write() -> None:
        begin(folder, plan, files)
        for shard in all_shards(folder, plan):
            with shard.writer() as writer:
                for batch in moments[shard.start : shard.start + shard.count].split(64):
                    writer.write(batch)
        finish(folder, plan)

    write_seconds = seconds(write)
    loader = Runner.build_dataloader(
        dict(
            dataset=dict(type='LatentCacheDataset', data_root=str(folder)),
            sampler=dict(type='EpochSampler', seed=0),
            batch_size=args.batch_size,
            num_workers=0,
            collate_fn=dict(type='collate_latents'),
        )
    )
    return _row(f'cache, {dtype}', folder, write_seconds, loader, args.epochs)


def seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _row(name: str, folder: Path, write_seconds: float, loader: Any, epochs: int) -> dict[str, Any]:
    dataset = loader.dataset
    fetch_batch = getattr(dataset, '__getitems__', lambda indices: [dataset[index] for index in indices])

    def fetch() -> None:
        for indices in loader.batch_sampler:
            fetch_batch(indices)

    def load() -> None:
        for _ in loader:
            pass

    files = [path.stat() for path in folder.iterdir()]
    return {
        'format': name,
        'bytes/image': sum(file.st_size for file in files) / len(dataset),
        'allocated bytes/image': sum(file.st_blocks * 512 for file in files) / len(dataset),
        'write images/s': len(dataset) / write_seconds,
        'fetch images/s': len(dataset) / min(seconds(fetch) for _ in range(epochs)),
        'load images/s': len(dataset) / min(seconds(load) for _ in range(epochs)),
    }
