"""The page about other tools: its Python runs, and its commands exist."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.trained_files import trained

PAGE = Path(__file__).parents[1] / 'docs' / 'ecosystem.md'
BLOCKS = re.findall(r'```(\w+)\n(.*?)```', PAGE.read_text(), re.DOTALL)
COMMANDS = [shlex.split(line) for kind, text in BLOCKS if kind == 'bash' for line in text.splitlines()]


def test_the_python_blocks_run_in_order(tmp_path, monkeypatch, tiny_vae_folder):
    from helpers.trained_files import load

    monkeypatch.chdir(tmp_path)
    load(trained('generator', tiny_vae_folder, tmp_path / 'sit.pth')).save_pretrained('my-sit')
    names: dict = {}
    for kind, text in BLOCKS:
        if kind == 'python':
            exec(compile(text, str(PAGE), 'exec'), names)  # noqa: S102
    assert len(names['names']) > 80 and len(names['images']) == 2
    assert [type(names[key]).__name__ for key in ('generator', 'model', 'pipe')] == [
        'Generator',
        'USPClassifier',
        'SiTPipeline',
    ]


def test_the_commands_are_of_three_kinds():
    assert sorted({tuple(words[:2]) for words in COMMANDS}) == [
        ('mim', 'search'), ('mim', 'test'), ('mim', 'train'), ('usp', 'export'), ('usp', 'train'),
    ]  # fmt: skip


@pytest.mark.parametrize('words', [words for words in COMMANDS if words[0] == 'usp'], ids=' '.join)
def test_a_command_is_parsed(words, monkeypatch):
    from usp_mm.cli import export, train

    monkeypatch.setattr('sys.argv', words[1:])
    args = dict(export=export, train=train)[words[1]].parse_args()
    assert args.diffusers if words[1] == 'export' else args.tracker == words[words.index('--tracker') + 1 :]


@pytest.mark.parametrize(
    'words', [words for words in COMMANDS if words[:2] in (['mim', 'train'], ['mim', 'test'])], ids=' '.join
)
def test_openmim_finds_one_config_of_that_name_and_the_tool(words):
    """As it does: below the package, through links."""
    from usp_mm.compat.model_index import MIM

    found = list((MIM / 'configs').resolve().rglob(words[3]))
    assert len(found) == 1 and (MIM / 'tools' / f'{words[1]}.py').is_file()
