"""Write the demo data: real handwritten digits in ImageNet's layout and scenes of them in ADE20K's.

python tools/make_demo_data.py data/demo
"""

import argparse

from usp_mm.cli import run_command
from usp_mm.datasets.demo import DemoData, make_demo_data


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', help='folder to make')
    for name, default in vars(DemoData()).items():
        parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=default, help=f'default {default}')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    out = args.pop('out')
    written = make_demo_data(out, DemoData(**args))
    print(f'{out}: written' if written else f'{out}: already there')


if __name__ == '__main__':
    run_command(main)
