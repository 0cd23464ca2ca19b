"""Check the tests: get one decision wrong at a time, in a copy of the project, and see that a test notices.

python dev/mutations.py                          # all of dev/decisions.py, some minutes on one core
python dev/mutations.py --only respacing LARS    # those whose names contain one of these
python dev/mutations.py --write                  # and the table of docs/mutations.md; with --only, their rows of it

Exit 1 if a decision is not caught: then a test is missing.
"""

import argparse
import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import pytest
from decisions import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
PAGE = 'docs/mutations.md'
SHARED = ('torch', 'torch.utils.data', 'mmengine', 'scipy.linalg', 'sklearn')  # imported once
FOLDERS = ('configs', 'dev', 'docs', 'requirements', 'tests', 'tools', 'usp_mm')
PASSED, FAILED, WRONG_COPY = 0, 1, 99  # the first two are pytest's; others say that the tests did not run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', metavar='WORD', help='decisions whose names contain one of these')
    parser.add_argument('--write', action='store_true', help=f'write {PAGE}; the rows of what is not run stay')
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


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """(exit code, first failure or the last line) of pytest in the copy, in a fork that has torch imported already."""
    log = copy / 'pytest.log'
    process = get_context('fork').Process(target=_pytest, args=(copy, list(tests), log))
    process.start()
    process.join()
    output = log.read_text().strip()
    failed = re.findall(r'^(?:FAILED|ERROR) (.+?)(?: - |$)', output, re.MULTILINE)
    assert process.exitcode is not None
    return process.exitcode, failed[0] if failed else output.splitlines()[-1]


def _pytest(copy: Path, tests: list[str], log: Path) -> None:
    sys.modules.pop('usp_mm', None)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(copy), str(copy / 'tests')]
    os.environ['PYTHONPATH'] = os.pathsep.join(sys.path[:2])  # of processes that tests start
    os.chdir(copy)
    sys.stdout = sys.stderr = log.open('w')
    for descriptor in (1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)
    code = int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *tests]))
    package = sys.modules.get('usp_mm')
    if package is not None and not str(package.__file__).startswith(str(copy)):
        code = WRONG_COPY
    sys.stdout.flush()
    os._exit(code)


def try_one(copy: Path, mutation: Mutation) -> tuple[bool, str]:
    """Whether a test noticed, and which."""
    file = copy / mutation.file
    text = file.read_text()
    file.write_text(text.replace(mutation.old, mutation.new))
    code, what = run_tests(copy, mutation.tests)
    file.write_text(text)
    return code == FAILED, what


def read_page(text: str) -> dict[str, str]:
    """Decision -> last column, of a table that `page` wrote."""
    rows = (line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| ') and '`' in line)
    return {row[0]: row[2] for row in rows}


def page(mutations: list[Mutation], outcomes: dict[str, str]) -> str:
    """The table, as Markdown. `outcomes`: decision -> last column."""
    lines = [f'| {m.name} | `{m.file}` | {outcomes.get(m.name, "not run")} |' for m in mutations]
    caught = sum(outcomes.get(m.name, '').startswith('`') for m in mutations)
    body = '\n'.join(lines)
    return f"""# Decisions that a test holds

Each row is one decision that the official numbers hang on. `python dev/mutations.py` gets one at a time wrong, in a copy of the
project, and runs the test files that `dev/decisions.py` names for it; the third column is the first test that failed then. The
command runs by hand, in some minutes on one core, and exits with 1 if something goes unnoticed. This page is what
`--write` made of it: {caught} of {len(mutations)} caught.

| decision | file | test that catches it |
|---|---|---|
{body}
"""


def main() -> int:
    args = parse_args()
    chosen = [m for m in MUTATIONS if not args.only or any(word.lower() in m.name.lower() for word in args.only)]
    if problems := stale(chosen):
        sys.exit('\n'.join(problems))
    os.environ['OMP_NUM_THREADS'] = '1'
    for name in SHARED:
        importlib.import_module(name)
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
        file = ROOT / PAGE
        outcomes = read_page(file.read_text()) if file.is_file() else {}
        outcomes |= {m.name: f'`{what}`' if caught else '**not caught**' for m, caught, what in rows}
        file.write_text(page(MUTATIONS, outcomes))
    missed = sum(not caught for _, caught, _ in rows)
    print(f'{len(rows) - missed} of {len(rows)} caught')
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
