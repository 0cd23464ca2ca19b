"""Write docs/experiments.md, the config tables of configs/*/README.md and the results tables of docs/configs.md.

python tools/make_model_zoo.py            # after a change of a config, a metafile or docs/paper_tables.yml
python tools/make_model_zoo.py --check    # exit 1 if something is stale or a table or figure of the paper is missing

Operations are counted of configs that have changed since docs/complexity.json was written; after a change of the models' code,
--recount counts all. Tables stand between `<!-- zoo: NAME -->` and `<!-- /zoo -->`; what is around them stays.
"""

import argparse
from pathlib import Path

from usp_mm.runtime.command import run_command

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if a file is stale')
    parser.add_argument('--recount', action='store_true', help="count every config's operations again (a minute)")
    parser.add_argument('--root', type=Path, default=ROOT, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from model_zoo.completeness import check_completeness
    from model_zoo.entries import read_zoo
    from model_zoo.pages import generate

    stale, zoo = [], read_zoo(args.root)
    check_completeness(zoo)
    for path, text in generate(zoo, args.recount).items():
        file = args.root / path
        if not file.is_file() or file.read_text() != text:
            stale.append(path)
            if not args.check:
                file.write_text(text)
    if args.check and stale:
        print(f'stale: {", ".join(stale)}: run python tools/make_model_zoo.py')
        return 1
    print(f'written: {", ".join(stale)}' if stale else 'everything is up to date')
    return 0


if __name__ == '__main__':
    run_command(main)
