"""Every block of README.md and of the pages: commands are read by their tools' parsers, Python is compiled, some are run.

A block is `bash`, `python`, `text` (what is shown and not typed) or a directive of the documentation. Python has its test in
`RUN`.
"""

import inspect
import re

import pytest
from helpers.doc_blocks import PAGES, PLACEHOLDER, blocks, commands, parsed
from helpers.small_world import ROOT

import usp_mm
from usp_mm.apis import Encoder, Generator
from usp_mm.config.lookup import find_config

BLOCKS = [block for page in PAGES for block in blocks(page)]
BASH = [block for block in BLOCKS if block.language == 'bash']
PYTHON = [block for block in BLOCKS if block.language == 'python']
#: Pages whose Python is run, and by which test.
RUN = {
    'README.md': 'tests/test_tools/test_export_tool.py::test_the_three_lines_of_the_readme',
    'docs/get-started.md': 'tests/test_docs_run.py::test_the_stages_by_hand',
    'CONTRIBUTING.md': 'tests/test_docs_run.py::test_the_docstring_in_contributing',
    'docs/ecosystem.md': 'tests/test_docs_ecosystem.py::test_the_python_blocks_run_in_order',
    'docs/what-it-sees.md': 'tests/test_apis/test_encoder_attention.py::test_the_python_of_the_page',
    'docs/processes.md': 'tests/test_engine/test_optim/test_sharding.py::test_losses_and_files_are_those_without_sharing',
}

#: Folders of pictures, where a config could stand.
FOLDERS = {'my-photos'}


def test_every_block_says_what_it_is():
    allowed = re.compile(r'bash|python|text|\{[\w-]+\}.*')
    assert [f'{block} {block.language!r}' for block in BLOCKS if not allowed.fullmatch(block.language)] == []
    for page in PAGES:
        assert len(re.findall(r'^ *(?:`{3,}|~{3,})', (ROOT / page).read_text(), re.MULTILINE)) == 2 * len(blocks(page)), page
    assert {'README.md', 'docs/experiments.md', 'docs/get-started.md'} <= {block.page for block in BASH} and len(BASH) > 50


@pytest.mark.parametrize('block', BASH, ids=str)
def test_every_command_is_read_by_its_tool(block, monkeypatch):
    read = 0
    for words in commands(block):
        args = parsed(words, monkeypatch)
        config = getattr(args, 'config', None)
        if isinstance(config, str) and config not in FOLDERS and not PLACEHOLDER.fullmatch(config):
            assert find_config(config).is_file()
        missing = [word for word in words if word.startswith(('configs/', 'tools/')) and not (ROOT / word).is_file()]
        assert missing == []
        read += 1
    assert read


@pytest.mark.parametrize('block', PYTHON, ids=str)
def test_all_python_compiles_and_is_run_by_a_test(block):
    compile(block.text, str(block), 'exec')
    file, _, name = RUN[block.page].partition('::')
    assert f'def {name}(' in (ROOT / file).read_text()


@pytest.mark.parametrize(
    ('call', 'function'),
    [
        ('usp_mm.from_pretrained', usp_mm.from_pretrained),
        ('encoder.encode', Encoder.encode),
        ('encoder.attention', Encoder.attention),
        ('encoder.restore', Encoder.restore),
        ('encoder.classify', Encoder.classify),
        ('generator.sample', Generator.sample),
        ('generator.trajectory', Generator.trajectory),
    ],
)
def test_signatures_on_the_python_page_are_those_of_the_code(call, function):
    """Names in order, and defaults; `…` stands for further ones that the line before has."""
    text = (ROOT / 'docs/python.md').read_text()
    shown = re.sub(r'\s+', ' ', re.search(rf'^{re.escape(call)}\((.*?)\)', text, re.MULTILINE | re.DOTALL)[1])
    found = [
        name if value.default is inspect.Parameter.empty else f'{name}={value.default!r}'
        for name, value in inspect.signature(function).parameters.items() if name != 'self'
    ]  # fmt: skip
    words = [word for word in shown.split(', ') if word not in ('*', '…')]
    assert words == (found[: len(words)] if '…' in shown else found)
