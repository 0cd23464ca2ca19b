"""Kill the tools with SIGKILL, run the same command again until it is done, and compare with a run that was left alone.

python dev/kill.py WORK                                                  # 6 kills of each scenario and mode
python dev/kill.py WORK --scenarios pretrain,cache --modes steps --kills 0       # before every change of the file system
python dev/kill.py WORK --scenarios pretrain-2 --modes uniform --kills 20 --cold       # fresh interpreters, by torchrun
python dev/kill.py WORK --scenarios cache --modes steps --kills 0 --matching manifest

uniform  at a moment drawn uniformly from the time that the run takes
aimed    0 to 20 ms after a file appeared or vanished that a checkpoint, shard or result consists of
steps    before a change of the file system in the run's folder: a file opened for writing, a rename, a removal, a mode, and
         when a file is open and still empty

Exit code 1 if a run could not be resumed, left another result, or left a stray file. A power failure, in which what was not
synced is lost too, is not simulated. Every run is a fork of one process that has imported everything, unless --cold is given.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'dev')]
os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), *os.environ.get('PYTHONPATH', '').split(os.pathsep)]).rstrip(os.pathsep)

from kill_parts.campaign import Campaign  # noqa: E402
from kill_parts.compare import KINDS  # noqa: E402
from kill_parts.data import make_data  # noqa: E402
from kill_parts.runs import prepare_forks  # noqa: E402
from kill_parts.scenarios import scenarios  # noqa: E402

MODES = ('steps', 'aimed', 'uniform')


def parse_args() -> argparse.Namespace:
    names = list(scenarios(Path()))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=Path, help='folder for everything; its data are made once')
    parser.add_argument('--scenarios', default=','.join(names), help='default: all, %(default)s')
    parser.add_argument('--modes', default=','.join(MODES), help='default: %(default)s')
    parser.add_argument('--kills', type=int, default=6, help='of each scenario and mode; 0: all steps (default: %(default)s)')
    parser.add_argument('--matching', default='', metavar='REGEX', help='of the steps, those whose "event path" it matches')
    parser.add_argument('--patience', type=float, default=180, help='seconds a resumed run may take (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default: %(default)s)')
    parser.add_argument('--cold', action='store_true', help='a fresh interpreter a run, torchrun for several; without steps')
    args = parser.parse_args()
    args.scenarios, args.modes = args.scenarios.split(','), args.modes.split(',')
    for given, known in ((args.scenarios, names), (args.modes, MODES)):
        if unknown := set(given) - set(known):
            parser.error(f'{", ".join(sorted(unknown))}: there are {", ".join(known)}')
    return args


def main() -> int:
    args = parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare_forks()
    known = scenarios(work / 'data')
    chosen = [known[name] for name in args.scenarios]
    make_data(ROOT, work / 'data', [name for scenario in chosen for name in scenario.needs])
    campaign = Campaign(work, args.seed, args.cold, args.patience)
    print(f'{"scenario":18} {"mode":8} {"kills":>5} {"runs":>5} {"".join(f"  {kind}" for kind in KINDS)}', flush=True)
    for scenario in chosen:
        for mode in args.modes:
            if mode != 'steps':
                getattr(campaign, mode)(scenario, args.kills)
            elif not args.cold:
                campaign.steps(scenario, args.kills, args.matching)
    print(f'{sum(row.kills for row in campaign.rows)} kills, {len(campaign.deviations)} deviations')
    return int(bool(campaign.deviations))


if __name__ == '__main__':
    sys.exit(main())
