"""--cfg-options on the command line."""

from argparse import ArgumentParser

import pytest

from usp_mm.arguments import add_config_arguments


def parse(*words):
    parser = ArgumentParser(prog='tool')
    add_config_arguments(parser)
    return parser.parse_args(words).cfg_options


def test_options():
    assert parse() == {}
    assert parse('--cfg-options', 'a.b=x=1', "c='1, 2'", 'd=/a b', '--cfg-options', 'e=') == {
        'a.b': 'x=1', 'c': '1, 2', 'd': '/a b', 'e': '',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('foo', "--cfg-options: 'foo' is no key=value"),
        ('=3', "'=3' is no key=value"),
        ('a..b=3', "'a..b=3' is no key=value"),
        ('a.b=[1,2', '--cfg-options a.b: [1,2 has a bracket without its partner'),
        ('a={b: 1}', '--cfg-options a: {b: 1} is no dict'),
    ],
)
def test_mistakes_are_one_line(word, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse('--cfg-options', word)
    assert end.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('tool: error: ') and message in last
