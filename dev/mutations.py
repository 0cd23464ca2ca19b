"""Check the tests: get one decision wrong at a time, in a copy of the project, and see that a test notices.

python dev/mutations.py                          # all of dev/decisions.py, about ten minutes on one core
python dev/mutations.py --only respacing LARS    # those whose names contain one of these
python dev/mutations.py --write                  # and the table of docs/mutations.md

Exit 1 if a decision is not caught: then a test is missing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from decisions import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
PAGE = 'docs/mutations.md'
FOLDERS = ('configs', 'dev', 'docs', 'requirements', 'tests', 'tools', 'usp_mm')
PASSED, FAILED = 0, 1  # of pytest; others say that it did not run the tests


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', metavar='WORD', help='decisions whose names contain one of these')
    parser.add_argument('--write', action='store_true', help=f'write {PAGE}, if all are run')
    return parser.parse_args()


def places(mutation: Mutation, root: Path = ROOT) -> int:
    """How often `old` stands in the file: once, or the list is out of date."""
    return (root / mutation.file).read_text().count(mutation.old)


def stale(mutations: list[Mutation], root: Path = ROOT) -> list[str]:
    """What is wrong with a list: an `old` that does not stand in its file exactly once, tests that there are not."""
    found = [f'{m.name}: its text stands {places(m, root)} times in {m.file}' for m in mutations if places(m, root) != 1]
    return found + [f'{m.name}: no {test}' for m in mutations for test in m.tests if not (root / test).is_file()]


def copy_project(copy: Path) -> None:
    """What is in version control, without bytecode: that of a changed file could pass for up to date."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns('__pycache__'))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, copy)


def run_tests(copy: Path, tests: tuple[str, ...] | list[str]) -> tuple[int, str]:
    """(exit code, first failure or the last line) of pytest in the copy."""
    env = dict(os.environ, PYTHONPATH=f'{copy}:{copy / "tests"}', PYTHONDONTWRITEBYTECODE='1', OMP_NUM_THREADS='1')
    command = [sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', *tests]
    result = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
    failed = re.findall(r'^(?:FAILED|ERROR) (\S+)', result.stdout, re.MULTILINE)
    return result.returncode, failed[0] if failed else (result.stdout.strip().splitlines() or [result.stderr])[-1]


def try_one(copy: Path, mutation: Mutation) -> tuple[bool, str]:
    """Whether a test noticed, and which."""
    file = copy / mutation.file
    text = file.read_text()
    file.write_text(text.replace(mutation.old, mutation.new))
    code, what = run_tests(copy, mutation.tests)
    file.write_text(text)
    return code == FAILED, what


def page(rows: list[tuple[Mutation, bool, str]]) -> str:
    """The table, as Markdown."""
    lines = [f'| {m.name} | `{m.file}` | {f"`{what}`" if caught else "**not caught**"} |' for m, caught, what in rows]
    body = '\n'.join(lines)
    return f"""# Decisions that a test holds

Each row is one decision that the official numbers hang on. `python dev/mutations.py` gets one at a time wrong, in a copy of the
project, and runs the test files that `dev/decisions.py` names for it; the third column is the first test that failed then. The
command runs by hand, on one core in about ten minutes, and exits with 1 if something goes unnoticed. This page is what
`--write` made of it: {sum(caught for _, caught, _ in rows)} of {len(rows)} caught.

| decision | file | test that catches it |
|---|---|---|
{body}
"""


def main() -> int:
    args = parse_args()
    chosen = [m for m in MUTATIONS if not args.only or any(word.lower() in m.name.lower() for word in args.only)]
    if problems := stale(chosen):
        sys.exit('\n'.join(problems))
    if args.write and args.only:
        sys.exit('--write needs all decisions: leave --only out')
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, 'project')
        copy_project(copy)
        code, what = run_tests(copy, sorted({test for m in chosen for test in m.tests}))
        if code != PASSED:
            sys.exit(f'the tests fail without a mutation: {what}')
        for mutation in chosen:
            rows.append((mutation, *try_one(copy, mutation)))
            print(f'{"caught" if rows[-1][1] else "NOT caught"}: {mutation.name} ({rows[-1][2]})', flush=True)
    if args.write:
        (ROOT / PAGE).write_text(page(rows))
    missed = sum(not caught for _, caught, _ in rows)
    print(f'{len(rows) - missed} of {len(rows)} caught')
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
