"""Measure what an optimizer's state and DDP's gradients take on each of several CPU processes, with and without sharing."""

import argparse
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import usp_mm

# isort: split

import torch
from mmengine.registry import OPTIMIZERS
from torch import nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import usp_mm.engine  # noqa: F401  (registers ZeroRedundancyOptimizer)

MIB = 2**20


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096


def share(rank: int, folder: str, processes: int, layers: int, shared: bool, views: bool) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=processes)
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(512, 512) for _ in range(layers)))
    before = resident()
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=views)
    kind: dict[str, Any] = dict(type='ZeroRedundancyOptimizer', optimizer_type='AdamW') if shared else dict(type='AdamW')
    optimizer = OPTIMIZERS.build(dict(kind, params=model.parameters(), lr=1e-3, foreach=False))
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(torch.randn(2, 512)).square().mean().backward()
        optimizer.step()
    Path(folder, str(rank)).write_text(f'{before} {resident()}')
    torch.distributed.barrier()


def measure(processes: int, layers: int, shared: bool, views: bool) -> int:
    """Most bytes that a process takes for the model's wrapper, gradients and optimizer."""
    with TemporaryDirectory() as folder:
        spawn(share, (folder, processes, layers, shared, views), nprocs=processes)
        found = [list(map(int, Path(folder, str(rank)).read_text().split())) for rank in range(processes)]
    return max(after - before for before, after in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--processes', type=int, default=2)
    parser.add_argument('--layers', type=int, default=100, help='layers of 512 × 512 weights, 1 MiB each')
    args = parser.parse_args()
    size = args.layers * (512 * 512 + 512) * 4
    print(f'{args.processes} processes, weights of {size / MIB:.0f} MiB; MiB beyond them on the fullest process:')
    for shared, views in itertools.product((False, True), (False, True)):
        taken = measure(args.processes, args.layers, shared, views)
        expected = size * (1 if views else 2) + 2 * size / (args.processes if shared else 1)
        kind = 'ZeroRedundancyOptimizer' if shared else 'AdamW'
        print(f'{kind}, gradient_as_bucket_view={views}: {taken / MIB:.0f} (expected {expected / MIB:.0f})', flush=True)


if __name__ == '__main__':
    main()
