"""Correctness and speed on one GPU in at most nine minutes: training, sampling, the VAE, caches, beside an official-style loop.

Sections run one after another in a process that may fail, hang or run out of memory: a row says so, and the next begins.
Correct is what agrees with the CPU in float32, compiled with eager, and resumed with straight on; the exit code is 1 if it
does not. "official" trains DiT-XL/2 in plain torch as the official script does, float32 with TF32, one group of AdamW, an
averaged copy updated in a Python loop, the loss read at each step; "× official" compares images/s with it at its first row.
TFLOP/s are the network's own operations, MFU their share of the rate of a large bfloat16 matrix product. "ms" is the median of
steps that run in a row, "host ms" the time in which the host launches a step's work, near "ms" where the host is the limit,
"kernels" what a step runs on the GPU, in section "operations" what it launches in eager mode, and "first s" the seconds before
the first step that counts, in which torch compiles.
"""

import argparse
import sys
from typing import Any

from benchmark_gpu.report import OK
from benchmark_gpu.sections import SECTIONS

HELP = 'one GPU in nine minutes: correctness, then training, sampling, VAE and caches against an official-style loop'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--only', nargs='+', choices=SECTIONS, metavar='SECTION', help=f'of {", ".join(SECTIONS)}')
    parser.add_argument('--skip', nargs='+', choices=SECTIONS, default=[], metavar='SECTION')
    parser.add_argument('--limit', type=float, default=510, metavar='SECONDS', help='of everything (default: %(default)s)')
    parser.add_argument(
        '--cpu-smoke', action='store_true', help='toy sizes on a CPU, without torch.compile: does it run at all'
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from benchmark_gpu.worker import run_sections

    names = [name for name in SECTIONS if name in (args.only or SECTIONS) and name not in args.skip]
    if not names:
        raise ValueError(
            f'--only {" ".join(args.only)} --skip {" ".join(args.skip)} leaves no section: leave out one of the two'
        )
    if not args.cpu_smoke and not torch.cuda.is_available():
        raise ValueError('there is no GPU that torch can use: --cpu-smoke runs the sections at toy sizes on the CPU')
    found = Findings()
    own = dict(seconds=args.limit) if args.cpu_smoke else {}
    run_sections({name: SECTIONS[name]._replace(**own) for name in names}, args.cpu_smoke, args.limit, found.take)
    compare(found.rows, found.facts)
    return {**vars(found), 'failed': failures(found.rows, found.checks)}


class Findings:
    """What the sections send, told as it comes.

    Attributes:
        rows, checks: in order.
        facts: by name.
        seconds: that each section took.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}

    def take(self, event: tuple[str, dict[str, Any]]) -> None:
        kind, content = event
        if kind == 'row':
            self.rows.append(content)
        elif kind == 'add':
            self.rows[-1].update(content)
        elif kind == 'check':
            self.checks.append(content)
        else:
            dict(fact=self.facts, seconds=self.seconds)[kind].update(content)
        told = {key: value for key, value in content.items() if value is not None and key != 'peers'}
        if told:
            print(f'{kind}: {told}', file=sys.stderr, flush=True)


def compare(rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Fill in '× official', against the first row of the same peers, if that is the official one, and 'MFU %'."""
    from benchmark_gpu.facts import MATMUL

    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        peers = row.pop('peers')
        if row['status'] != OK or row['images/s'] is None:
            continue
        if peers and 'plain torch' in row['what']:
            first.setdefault(peers, row)
        if peers in first:
            row['× official'] = row['images/s'] / first[peers]['images/s']
        if row['TFLOP/s'] is not None and MATMUL in facts:
            row['MFU %'] = 100 * row['TFLOP/s'] / facts[MATMUL]


def failures(rows: list[dict[str, Any]], checks: list[dict[str, Any]]) -> list[str]:
    """Checks that failed, and sections of checks that did not come to their end."""
    wrong = [check for check in checks if not check['ok']]
    told = [
        f'{check["section"]}: {check["name"]}, {check["error"]:.3g} instead of {check["limit"]:g} at most' for check in wrong
    ]
    named = {check['section'] for check in wrong}
    for row in rows:
        if SECTIONS[row['section']].checks and row['status'] != OK and row['section'] not in named:
            told.append(f'{row["section"]}: {row["status"]}')
    return told
