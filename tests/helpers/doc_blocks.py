"""The code blocks of the pages, and the arguments that the tools see of the commands in them."""

import importlib
import re
import runpy
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from .small_world import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ('*.md', 'docs/**/*.md', 'tests/README.md', 'configs/*/README.md')
    for path in ROOT.glob(pattern)
    if '_build' not in path.parts
)
#: Programs of others: what they are called with is theirs.
OTHERS = {'hf', 'mim', 'pre-commit', 'source', 'tensorboard'}
PLACEHOLDER = re.compile(r'[A-Z][A-Z_-]*')
_FENCE = re.compile(r'^( *)(`{3,}|~{3,})(.*?)\n(.*?)^\1\2 *$', re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r'([A-Z_]+)=(.*)', re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `language` is what follows the fence."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f'{self.page}:{self.line}'


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page."""
    text = (ROOT / page).read_text()
    return [Block(page, text.count('\n', 0, found.start()) + 1, found[3].strip(), found[4]) for found in _FENCE.finditer(text)]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command, with the variables that the block sets replaced and settings of the environment left out.

    Raises:
        KeyError: a variable that the block does not set.
    """
    values: dict[str, str] = {}
    for line in block.text.replace('\\\n', ' ').splitlines():
        words = [Template(word).substitute(values) for word in shlex.split(line, comments=True)]
        while words and (found := _ASSIGNMENT.fullmatch(words[0])):
            del words[0]
            if not words:
                values[found[1]] = found[2]
        if words:
            yield words


def parsed(words: list[str], monkeypatch) -> Namespace | None:
    """What a command's own parser makes of it; None of a program of others, after what can be said of its words.

    Raises:
        AssertionError: a program or file does not exist.
        SystemExit: the parser refused the words.
    """
    program, *rest = words
    program = program.removeprefix('.venv/bin/')
    if program in OTHERS:
        return None
    if program == 'pip':
        return _of_pip(rest)
    if program == 'usp':
        from usp_mm.cli.main import COMMANDS

        return _of_module(f'usp_mm.cli.{COMMANDS[rest[0]][0]}', f'usp {rest[0]}', rest[1:], monkeypatch)
    if program == 'bash':
        return _of_script(rest, monkeypatch)
    if program == 'torchrun' or (program == 'python' and rest[:2] == ['-m', 'usp_mm.runtime.torchrun']):
        from torch.distributed import run

        args = run.parse_args(rest if program == 'torchrun' else rest[2:])
        return parsed(['python', args.training_script, *args.training_script_args], monkeypatch)
    assert program == 'python', f"unknown program '{program}'"
    if rest[0] == '-c':
        compile(rest[1], '-c', 'exec')
        return None
    if rest[0] == '-m':
        assert rest[1] in ('pytest', 'sphinx'), words
        assert all((ROOT / word).exists() for word in rest[2:] if word.startswith(('tests/', 'docs')) and '_build' not in word)
        return None
    return _of_tool(rest[0], rest[1:], monkeypatch)


def _of_pip(words: list[str]) -> None:
    assert words[0] in ('install', 'uninstall'), words
    extras = {path.stem for path in (ROOT / 'requirements').glob('*.txt')} | {'all'}
    for word in words:
        if found := re.fullmatch(r'usp-mm\[(.*)\]', word):
            assert set(found[1].split(',')) <= extras, word


def _of_script(words: list[str], monkeypatch) -> Namespace | None:
    script, *rest = words
    assert (ROOT / script).is_file(), script
    name = Path(script).stem
    if name in ('dist_train', 'dist_test'):
        positional = 1 if name == 'dist_train' else 2
        assert rest[positional].isdigit(), words
        rest = [*rest[:positional], '--launcher', 'pytorch', *rest[positional + 1 :]]
    elif name == 'slurm_train':
        rest = [rest[2], '--work-dir', rest[3], '--launcher', 'slurm', *rest[4:]]
    elif name == 'slurm_test':
        rest = [*rest[2:4], '--launcher', 'slurm', *rest[4:]]
    elif name == 'quickstart':
        return _of_tool('tools/quickstart.py', rest, monkeypatch)
    else:
        assert name in ('test', 'docs'), words  # arguments of pytest and Sphinx
        return None
    return _of_tool(f'tools/{name.rpartition("_")[2]}.py', rest, monkeypatch)


def _of_tool(tool: str, words: list[str], monkeypatch) -> Namespace:
    """Of a script in tools/, which calls a module of usp_mm.cli or a script in dev/."""
    assert (ROOT / tool).is_file(), tool
    dev = ROOT / 'dev' / Path(tool).name
    if dev.is_file():
        monkeypatch.syspath_prepend(str(dev.parent))
        monkeypatch.setattr('sys.argv', [tool, *words])
        found = runpy.run_path(str(dev))
        return found['parse_args'](*([found['load_benchmarks']()] if 'load_benchmarks' in found else []))
    return _of_module(runpy.run_path(str(ROOT / tool))['main'].__module__, tool, words, monkeypatch)


def _of_module(module: str, name: str, words: list[str], monkeypatch) -> Namespace:
    monkeypatch.setattr('sys.argv', [name, *words])
    importlib.import_module(module)
    return sys.modules[module].parse_args()
