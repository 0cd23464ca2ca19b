"""How values of --cfg-options are written."""

import pytest
from mmengine.config import DictAction

from usp_mm.config.values import parse_value, quote_value


@pytest.mark.parametrize(
    'text',
    ['3', '-1', '1e-3', '1_000', 'inf', 'True', 'false', 'None', 'none', '', 'a,b', 'a,', ',a', '1,2,3', '[]', '()', '(1,)']
    + ['[a,b]', '[a, b, c]', '[1,,2]', '[(1,2),[a,b]]', '[(1, 2, 3), [a, b], c]', '[[1,2],[3]]', '"a","b"', '["a","b"]']
    + ['/x/run(1)/a.pth', 'data/a-b_c.pth', 'https://x.org/a.pth?b=c'],
)
def test_what_mmengine_reads_is_read_alike(text):
    found, expected = parse_value(text), DictAction._parse_iterable(text)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ("'/x/a b, c=d'", '/x/a b, c=d'),
        ('"8"', '8'),
        ("'None'", 'None'),
        ('/x/a b/c.pth', '/x/a b/c.pth'),
        ("/x/john's data/a.pth", "/x/john's data/a.pth"),
        ('golden retriever, tabby', ['golden retriever', 'tabby']),
        ("['/x/a,b', c d]", ['/x/a,b', 'c d']),
        ("{'type': 'Mixup', 'alpha': 0.8}", {'type': 'Mixup', 'alpha': 0.8}),
        ("[{'type': 'A', 'x': (1, 2)}, {'type': 'B'}]", [{'type': 'A', 'x': (1, 2)}, {'type': 'B'}]),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ("dict(type='Mixup', alpha=0.8)", {'type': 'Mixup', 'alpha': 0.8}),
        ('[dict(type="A", x=dict(y=[1, dict()])), b]', [{'type': 'A', 'x': {'y': [1, {}]}}, 'b']),
        ("{'a': dict(b=-1)}", {'a': {'b': -1}}),
        ('dict(a).pth', 'dict(a).pth'),
        ("dict(type='A',checkpoint='/x/a).pth')", {'type': 'A', 'checkpoint': '/x/a).pth'}),
        ('[dict(a=":)",b=1),c]', [{'a': ':)', 'b': 1}, 'c']),
        ('dict(a="it\'s, (x")', {'a': "it's, (x"}),
        ("'dict(a=1)'", 'dict(a=1)'),
    ],
)
def test_text_in_quotes_spaces_and_dicts(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[1,2', r'\[1,2 has a bracket without its partner'),
        ('a:(b,c', 'has a bracket without its partner'),
        ('{a: 1}', r'\{a: 1\} is no dict as Python writes it'),
        ('{1, 2}', 'is a set, expected a dict'),
        ('dict(a=b)', r'dict\(a=b\) is no dict as Python writes it'),
        ('dict(1)', 'is no dict as Python writes it'),
        ('dict(a=1,a=2)', 'is no dict as Python writes it'),
        ('dict(**{"a": 1})', 'is no dict as Python writes it'),
        ('dict(a=open("x"))', 'is no dict as Python writes it'),
    ],
)
def test_what_is_no_value(text, message):
    with pytest.raises(ValueError, match=message):
        parse_value(text)


@pytest.mark.parametrize(
    'path', ['/x/a', '/x/a b', '/x/a,b', '8', 'None', '/x/{a}%s', '{a}', '[1]', "it's, a", 'a"b, c', '=é', ' lead', '"q"']
)
def test_any_path_can_be_quoted(path):
    assert parse_value(quote_value(path)) == path


def test_what_needs_no_quotes_gets_none():
    assert quote_value('work_dirs/run=1/epoch_1.pth') == 'work_dirs/run=1/epoch_1.pth'
    with pytest.raises(ValueError, match='both kinds of quotes'):
        quote_value("""a",'b',c""")
