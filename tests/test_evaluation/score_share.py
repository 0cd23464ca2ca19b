"""One process's share of an evaluation: `torchrun score_share.py FOLDER`, see test_processes.py."""

import json
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank, get_world_size
from numbered import Recorded, results

from usp_mm.evaluation import FeatureMetrics
from usp_mm.runtime.command import run_command


def numbers_of(rank: int, world: int) -> list[int]:
    """What a padding sampler deals out: the first samples come a second time at the end."""
    padded = [*range(600), *range(10)]
    return padded[rank::world]


def main(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    rank, world = get_rank(), get_world_size()
    extractor = Recorded()
    metric = FeatureMetrics(extractor, str(folder / 'ref.npz'), cache_dir=str(folder / f'cache-{world}'), batch_size=7)
    own = numbers_of(rank, world)
    for start in range(0, len(own), 50):
        metric.process(None, results(own[start : start + 50]))
    scores = metric.evaluate(600)
    seen = extractor.seen - len(own)
    metric.process(None, results(own[:10] if rank == 0 else own[:3]))
    try:
        metric.evaluate(600)
        error = None
    except ValueError as raised:
        error = str(raised)
    if rank == 0:
        metric.process(None, results(list(range(600))))
    alone = metric.evaluate(600)
    failures = {name: error_of(folder, {name: str(folder / 'ref.npz')}) for name in ('cache_dir', 'out_dir')}
    result = dict(scores=scores, alone=alone, error=error, reference_images=seen, reported=metric.report is not None)
    result['failures'] = failures
    (folder / f'{rank}-of-{world}.json').write_text(json.dumps(result))


def error_of(folder: Path, setting: dict[str, str]) -> str:
    """Which exception ends an evaluation that can't write where `setting` says, on this process."""
    try:
        metric = FeatureMetrics(Recorded(), str(folder / 'ref.npz'), **{'cache_dir': str(folder / 'cache'), **setting})
        metric.process(None, results(list(range(600))[get_rank() :: get_world_size()]))
        metric.evaluate(600)
    except (OSError, SystemExit) as raised:
        return type(raised).__name__
    return 'none'


if __name__ == '__main__':
    run_command(lambda: main(Path(sys.argv[1])))
