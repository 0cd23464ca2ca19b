"""Write demo data: real handwritten digits in ImageNet's layout and scenes of them in ADE20K's, or crops of photographs.

python tools/make_demo_data.py data/demo
python tools/make_demo_data.py data/crops --kind crops
"""

import argparse

from usp_mm.cli import run_command
from usp_mm.options import DemoCrops, DemoData

KINDS = {'digits': DemoData, 'crops': DemoCrops}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', help='folder to make')
    parser.add_argument('--kind', choices=list(KINDS), default='digits', help='default: %(default)s')
    numbers = {kind: vars(config()) for kind, config in KINDS.items()}
    for name in dict.fromkeys(name for defaults in numbers.values() for name in defaults):
        known = ', '.join(f'{kind}: {defaults[name]}' for kind, defaults in numbers.items() if name in defaults)
        parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=argparse.SUPPRESS, help=f'default for {known}')
    args = parser.parse_args()
    for name in vars(args).keys() - {'out', 'kind'} - numbers[args.kind].keys():
        parser.error(f'--{name.replace("_", "-")} is not an option of --kind {args.kind}')
    return args


def main() -> None:
    args = vars(parse_args())
    from usp_mm.datasets.demo import make_demo_data
    from usp_mm.datasets.demo_crops import make_demo_crops

    out, kind = args.pop('out'), args.pop('kind')
    written = dict(digits=make_demo_data, crops=make_demo_crops)[kind](out, KINDS[kind](**args))
    print(f'{out}: written' if written else f'{out}: already there')


if __name__ == '__main__':
    run_command(main)
