"""Try many inputs that are nearly right on every parser of files and options.

python dev/fuzz.py                                   # 10,000 inputs each, some minutes each
python dev/fuzz.py manifest image --num 1000 --seed 3

Exit 1 if a parser fails with anything but one line of a ValueError or FileNotFoundError, takes more than 10 s, or more memory
than --gigabytes. Each such input is written to --out, by parser and number. The targets are those of tests/test_fuzz.py.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import usp_mm  # noqa: E402, F401  (before torch)

# isort: split
from helpers.fuzz_targets import TARGETS, Target, attempt  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(TARGETS)} (default: all)')
    parser.add_argument('--num', type=int, default=10_000, help='inputs of each (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another one draws other inputs (default: %(default)s)')
    parser.add_argument('--gigabytes', type=float, default=4, help='memory beyond that of the start (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('fuzz_failures'), help='folder of inputs that fail')
    args = parser.parse_args()
    if unknown := set(args.names) - set(TARGETS):
        parser.error(f'{", ".join(sorted(unknown))}: no such parser, there are {", ".join(TARGETS)}')
    return args


def fuzz(target: Target, num: int, start: int) -> tuple[dict[str, object], float]:
    """What went wrong -> the first input with which it did, and the longest time of one input in seconds."""
    found: dict[str, object] = {}
    longest = 0.0

    @seed(start)
    @settings(max_examples=num, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def run(value: object) -> None:
        nonlocal longest
        begun = time.monotonic()
        outcome = attempt(target, value)
        longest = max(longest, time.monotonic() - begun)
        if outcome is not None:
            found.setdefault(outcome, value)

    run()
    return found, longest


def limit_memory(gigabytes: float) -> None:
    """Let allocations beyond this fail."""
    now = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + int(gigabytes * 1e9), resource.RLIM_INFINITY))


def main() -> int:
    args = parse_args()
    failed = 0
    for name in args.names or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            target = TARGETS[name](Path(folder))
            attempt(target, None)  # imports what it needs
            limit_memory(args.gigabytes)
            begun = time.process_time()
            found, longest = fuzz(target, args.num, args.seed)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f'{name}: {args.num:,} inputs, {len(found)} faults, longest {longest:.1f} s, '
            f'{time.process_time() - begun:.0f} s of CPU, at most {used:.1f} GB'
        )
        for number, (outcome, value) in enumerate(found.items()):
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / f'{name}-{number}.txt').write_text(repr(value))
            print(f'  {outcome}')
        failed += bool(found)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
