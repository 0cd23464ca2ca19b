"""How threads wait for each other on a CPU: a pretraining step, alone and beside processes that burn time.

Settings: "default" is that of the OpenMP library, "ours" what `usp_mm.runtime.threads` sets, "passive" waits asleep
(OMP_WAIT_POLICY=PASSIVE), "one thread" has nobody to wait for. Each number is a fresh process on the plain loop of
`benchmark.py pretrain`, without a GPU. To measure another OpenMP library, preload it: LD_PRELOAD=…/libiomp5.so.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark_lib import in_fresh_process

from .pretrain import plain_ms

HELP = 'a pretraining step by how threads wait, on an idle and on a busy machine'
_OURS = ('GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'OMP_WAIT_POLICY')
SETTINGS: dict[str, dict[str, str]] = {
    'default': dict(GOMP_SPINCOUNT='300000', KMP_BLOCKTIME='200'),  # what the libraries do without
    'ours': {},
    'passive': dict(OMP_WAIT_POLICY='PASSIVE'),
    'one thread': dict(OMP_NUM_THREADS='1'),
}
#: Side and number of images, and steps: the quickstart's pretraining, and base size.
SIZES = {'tiny': (64, 64, 60), 'base': (224, 4, 9)}
_BURN = 'import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100000))'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--archs', nargs='+', choices=SIZES, default=list(SIZES), help='default: both')
    parser.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS), help='default: all')
    parser.add_argument('--threads', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--beside', type=int, default=3, help='processes that burn time (default: %(default)s)')
    parser.add_argument('--steps', type=int, help='of which the first third is not counted (default: 60 tiny, 9 base)')
    parser.add_argument('--row', type=json.loads, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.row:
        return dict(rows=[measure(**args.row)])
    if args.steps is not None and args.steps < 3:
        raise ValueError(f'--steps {args.steps} must be 3 or more: the first third is not counted')
    rows = []
    for arch in args.archs:
        for setting in args.settings:
            row = dict(network=arch, setting=setting)
            for name, burning in (('idle', 0), ('busy', args.beside)):
                with beside(burning):
                    found = in_fresh_process('threads', options(args, arch), environment(setting, args.threads))
                row |= {f'{name} ms/step': found['ms/step']}
            rows.append(row)
    compare(rows)
    return dict(rows=rows, library=found['library'], busy=f'beside {args.beside} processes', threads=args.threads)


def options(args: argparse.Namespace, arch: str) -> list[str]:
    return ['--row', json.dumps(dict(arch=arch, steps=args.steps or SIZES[arch][2]))]


def environment(setting: str, threads: int) -> dict[str, str]:
    """Of the process that measures; 'ours' is left to `import usp_mm`."""
    env = {key: value for key, value in os.environ.items() if key not in _OURS}
    return {**env, 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': str(threads), **SETTINGS[setting]}


@contextmanager
def beside(num: int) -> Iterator[None]:
    """So many processes burn time in the block; each ends with this one too."""
    burning = [subprocess.Popen([sys.executable, '-c', _BURN]) for _ in range(num)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def measure(arch: str, steps: int) -> dict[str, Any]:
    img_size, batch_size, _ = SIZES[arch]
    return {'ms/step': plain_ms(arch, batch_size, steps, img_size), 'library': library()}


def library() -> str:
    """File of the OpenMP library that torch uses, the first that was loaded."""
    maps = Path('/proc/self/maps')
    loaded = [line.split()[-1] for line in maps.read_text().splitlines()] if maps.is_file() else []
    names = ('libiomp5', 'libomp', 'libgomp')  # a preloaded one of the first two serves in place of the third
    return next((file for name in names for file in loaded if Path(file).name.startswith(name)), 'unknown')


def compare(rows: list[dict[str, Any]]) -> None:
    """Add what the settings cost: idle against the default, busy against passive waits; where those were measured."""
    for row in rows:
        peers = {peer['setting']: peer for peer in rows if peer['network'] == row['network']}
        for name, other in (('idle', 'default'), ('busy', 'passive')):
            if other in peers:
                row[f'{name} / {other}'] = row[f'{name} ms/step'] / peers[other][f'{name} ms/step']
