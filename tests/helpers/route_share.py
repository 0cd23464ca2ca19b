"""One process's share of a routed batch: `torchrun route_share.py FOLDER` writes the mean loss and the shared gradients."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from helpers.compiled_models import batch, build, gradients
from usp_mm.runtime.command import run_command

ARCH = dict(embed_dims=32, depth=4, num_heads=2)
NUM = 4
ROUTE = dict(keep=0.5, start=1, end=-1)
STD = 0.1  #: of the weights that two processes share: larger ones amplify float32's rounding


def generator(
    kind: str = 'SiT', route: dict | None = ROUTE, changes: dict | None = None, std: float = 0.25, **denoiser: Any
) -> Any:
    """A generator of four blocks that training routes, with weights that let every block matter."""
    model = build(kind, denoiser=dict(arch=ARCH, route=route, **denoiser), **(changes or {}))
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.denoiser.named_parameters():
            if parameter.requires_grad:
                scale = 1.0 if 'norm' in name and name.endswith('weight') else 0.0
                parameter.copy_(scale + std * torch.randn(parameter.shape, generator=random))
    model._sync_ema()
    return model.train()


def main(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    rank, share = torch.distributed.get_rank(), NUM // torch.distributed.get_world_size()
    rows = slice(rank * share, (rank + 1) * share)
    model = generator(std=STD)
    whole = batch(NUM)
    wrapped = DistributedDataParallel(model)
    loss = wrapped(whole['inputs'][rows], whole['data_samples'][rows], mode='loss')['loss']
    loss.backward()
    mean = loss.detach() / torch.distributed.get_world_size()
    torch.distributed.all_reduce(mean)
    if rank == 0:
        torch.save(dict(loss=mean, gradients=gradients(model)), folder / 'found.pth')


if __name__ == '__main__':
    run_command(lambda: main(Path(sys.argv[1])))
