"""--cfg-options on the command line."""

from argparse import ArgumentParser

import pytest

from usp_mm.config.arguments import add_config_arguments


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


@pytest.mark.parametrize(
    'words',
    [
        ['train', 'photos', '--step', '100'],
        ['sample', 'a', 'b', '--guid', '2'],
        ['evaluate', 'x', '--re', 'y'],
        ['cache', 'write', 'x', 'y', '--img', '64'],
    ],
)
def test_an_option_is_not_abbreviated(words, monkeypatch, capsys):
    """A misspelt option must not be taken for the beginning of another one."""
    from importlib import import_module

    monkeypatch.setattr('sys.argv', words)
    with pytest.raises(SystemExit):
        import_module(f'usp_mm.cli.{words[0]}').parse_args()
    assert 'error:' in capsys.readouterr().err
