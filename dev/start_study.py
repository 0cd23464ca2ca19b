"""Does a generator start faster from USP weights? Emoji, several arms and seeds, judged by the denoising loss.

python dev/start_study.py --records work_dirs/start.json                                  # everything that a laptop can do
python dev/start_study.py --records work_dirs/start.json --family sit --size tiny --arm usp --seed 0     # one run
python dev/start_study.py --records work_dirs/start-gpu.json --size small                 # on a GPU: 128 pixels
python dev/start_study.py --records work_dirs/start.json --fd                             # and FD of samples after the end
python dev/start_study.py --records docs/usp-start.json --report                          # table and curves of what there is

The protocol stands in docs/usp-start.md and was fixed before the first run. Runs go one after another in this process, in the
order of the protocol; set OMP_NUM_THREADS=1 for the CPU time of one thread. A finished run's record goes into the file of
--records at once, and a run that has a record is not repeated. Several processes may share the file and the work folder if each
has a size of its own and the pictures, VAE and caches are there. Those and the encoders stay in --work-dir; a generator's
checkpoint is not kept, so --fd trains runs again whose record lacks FD. It keeps their record, if the losses are the same.

Beside the records, the page of the same name (docs/usp-start.md) gets the tables between its two marks, and a picture for each
family and size is written (docs/usp-start-sit-tiny.png).
"""

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock
from start_study_parts.arms import ARMS, FAMILIES, SEEDS, SIZES

from usp_mm.fileio.atomic import write_json
from usp_mm.runtime.command import run_command

LAPTOP = ('tiny', 'medium', 'tiny-long')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--records', type=Path, required=True, metavar='FILE', help='JSON file of the runs')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/start-study'), help='default: %(default)s')
    parser.add_argument('--family', choices=FAMILIES, nargs='+', default=FAMILIES, help='default: both')
    parser.add_argument('--size', choices=SIZES, nargs='+', default=LAPTOP, help=f'default: {" ".join(LAPTOP)}')
    parser.add_argument('--arm', choices=ARMS, nargs='+', default=list(ARMS), help='default: all')
    parser.add_argument('--seed', type=int, choices=range(SEEDS), nargs='+', default=range(SEEDS), help='default: all')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--fd', action='store_true', help='also FD of samples, a minute a run')
    kind.add_argument('--report', action='store_true', help='train nothing')
    return parser.parse_args()


class Records:
    """The finished runs, in one JSON file that is written anew after each; several processes may share it.

    Raises:
        ValueError: The file is none of this script's.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.runs = path, _read(path)

    def find(self, family: str, size: str, arm: str, seed: int) -> dict[str, Any] | None:
        """The record of a run, None if it was not finished.

        Raises:
            ValueError: It was made with other numbers of steps or samples than now.
        """
        for run in self.runs:
            if _key(run) == (family, size, arm, seed):
                for key in ('steps', 'batch_size'):
                    if run[key] != getattr(SIZES[size], key):
                        raise ValueError(
                            f"'{self.path}' has {family} {size} {arm} seed {seed} with {key}={run[key]}, now it is "
                            f'{getattr(SIZES[size], key)}: name another --records'
                        )
                return run
        return None

    def add(self, record: dict[str, Any], report: Callable[[Path, list[dict[str, Any]]], None]) -> None:
        """Write a run behind those that other processes have finished meanwhile, or in its old place, and the report of all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f'.{self.path.name}.lock')):
            runs = {_key(run): run for run in _read(self.path)}
            self.runs = list((runs | {_key(record): record}).values())
            write_json(self.path, dict(runs=self.runs))
            report(self.path, self.runs)


def _key(run: dict[str, Any]) -> tuple[str, str, str, int]:
    return run['family'], run['size'], run['arm'], run['seed']


def with_fd(record: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """A record with FD of the same run, trained again.

    Raises:
        ValueError: The two had other losses, as on another processor or with other versions.
    """
    if record['losses'] != again['losses']:
        raise ValueError(
            f'{" ".join(map(str, _key(record)))} has now the losses {again["losses"]}, and in its record {record["losses"]}: '
            'FD would be of another run; name another --records'
        )
    return record | dict(fd=again['fd'], fd_commit=again['commit'])


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or set(content) != {'runs'}:
        raise ValueError(f"'{path}' holds no records of this study: expected the one key 'runs'; name another --records")
    runs: list[dict[str, Any]] = content['runs']
    return runs


def run_missing(args: argparse.Namespace, records: Records) -> None:
    """Train what has no record, or none with FD, and report after each run."""
    asked = list(product(args.family, args.size, args.arm, args.seed))
    found = {key: records.find(*key) for key in asked}
    wanted = [key for key, record in found.items() if record is None or (args.fd and 'fd' not in record)]
    if len(wanted) < len(asked):
        print(f"{len(asked) - len(wanted)} of {len(asked)} runs have a record in '{records.path}' and are not repeated")
    if not wanted:
        return
    from start_study_parts.report import write_report
    from start_study_parts.training import Study

    studies = {size: Study(size, args.work_dir) for size in dict.fromkeys(size for _, size, _, _ in wanted)}
    for study in studies.values():
        study.make_inputs()
    for key in wanted:
        family, size, arm, seed = key
        old, new = found[key], studies[size].train(family, arm, seed, judged=args.fd)
        records.add(with_fd(old, new) if old else new, write_report)


def main() -> None:
    args = parse_args()
    records = Records(args.records)
    if not args.report:
        run_missing(args, records)
    from start_study_parts.report import tables, write_report

    write_report(args.records, records.runs)
    print(tables(records.runs, args.records.stem))


if __name__ == '__main__':
    run_command(main)
