"""Parse and write the values of `--cfg-options KEY=VALUE`: numbers, text, lists and dicts.

The syntax is that of MMEngine's `DictAction` (`3`, `1e-3`, `True`, `None`, `a,b`, `[a,b]`, `[(1,2),[a,b]]`), except that

- a quoted value is always text and is kept unchanged: `'/data/a b, c=d'`, `"8"`;
- spaces inside a value are kept;
- `{'type': 'Mixup', 'alpha': 0.8}` and `dict(type='Mixup', alpha=0.8)` are a dict in Python's syntax, alone or as an item of a
  list.
"""

import ast
import math
import re
from typing import Any

_CALL = 'dict('
_PAIRS = {'(': ')', '[': ']', '{': '}'}
#: How deeply brackets may be nested.
_DEEPEST = 50
#: A quote at the beginning of a value, up to the same one at its end.
_QUOTED = re.compile(r"""\s*(['"])(.*?)\1\s*(?=,|$)""", re.DOTALL)


def parse_value(text: str) -> Any:
    """Parse a text into the value that it stands for.

    Raises:
        ValueError: A bracket has no partner, a dict is not in Python's syntax, brackets are nested too deeply, or a number is
            too large.
    """
    return _parse(text, 0)


def _parse(text: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f'{_shown(text)} lies in more than {_DEEPEST} brackets; text is put in quotes of its own')
    text = text.strip()
    if (quoted := _QUOTED.match(text)) and quoted.end() == len(text):
        return quoted[2]
    if text[:1] in _PAIRS and _closing(text) == len(text) - 1:
        if text[0] == '{':
            return _parse_dict(text)
        values = [_parse(part, depth + 1) for part in _split(text[1:-1])]
        return tuple(values) if text[0] == '(' else values
    if text.startswith(_CALL) and _closing(text, len(_CALL) - 1) == len(text) - 1:
        return _parse_dict(text)
    parts = _split(text)
    return [_parse(part, depth + 1) for part in parts] if ',' in text and parts != [text] else _parse_word(text)


def quote_value(value: object) -> str:
    """Write `str(value)` so that `parse_value` returns exactly this text, with quotes where they are needed.

    Raises:
        ValueError: The text contains both kinds of quotes before commas, so that neither can enclose it.
    """
    text = str(value)
    if parse_value_or_none(text) == text:
        return text
    for quote in ('"', "'"):
        if parse_value_or_none(f'{quote}{text}{quote}') == text:
            return f'{quote}{text}{quote}'
    raise ValueError(f'{text!r} cannot be written as an option: it has both kinds of quotes')


def parse_value_or_none(text: str) -> Any:
    """`parse_value`, or None if the text is not a valid value."""
    try:
        return parse_value(text)
    except ValueError:
        return None


def _parse_word(text: str) -> Any:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isinf(value) and 'inf' not in text.lower():
            raise ValueError(f'{_shown(text)} is larger than any float; text is put in quotes of its own')
        return value
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    return None if text == 'None' else text


def _parse_dict(text: str) -> dict[Any, Any]:
    try:
        value = _evaluate(ast.parse(text, mode='eval').body)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{_shown(text)} is no dict as Python writes it ({{'key': value}} or dict(key=value)); text is put in quotes of "
            'its own'
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(text)} is a {type(value).__name__}, expected a dict ({{'key': value}})")
    return value


def _evaluate(node: ast.expr) -> Any:
    """Like `ast.literal_eval`, with `dict(key=value)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        found = {word.arg: _evaluate(word.value) for word in node.keywords}
        if None not in found and len(found) == len(node.keywords):  # no `**`, no key twice
            return found
    if isinstance(node, ast.List | ast.Tuple):
        items = [_evaluate(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_evaluate, node.values), strict=True))
    return ast.literal_eval(node)


def _split(text: str) -> list[str]:
    """Split at the commas outside quotes and brackets; a trailing comma adds no empty item."""
    parts, rest = [], text
    while rest:
        end = quoted.end() if (quoted := _QUOTED.match(rest)) else _next_comma(rest)
        parts.append(rest[:end])
        rest = rest[end + 1 :]
    return parts


def _next_comma(text: str) -> int:
    i = 0
    while i < len(text) and text[i] != ',':
        i = i + 1 if text[i] not in _PAIRS else _closing(text, i) + 1
    return i


def _closing(text: str, start: int = 0) -> int:
    """Index at which the bracket at `start` is closed, or the last index if an unclosed bracket is part of a single word.

    Raises:
        ValueError: The bracket is never closed, and `text` begins with it or contains commas.
    """
    open_, calls, quote = list[str](), list[bool](), ''  # brackets that are open, and whether each is that of `dict(`
    for i in range(start, len(text)):
        char = text[i]
        if quote:
            quote = '' if char == quote else quote
        elif char in '\'"' and (text[i - 1] in ' ([{,:' or (text[i - 1] == '=' and calls and calls[-1])):
            quote = char
        elif char in _PAIRS:
            open_.append(_PAIRS[char])
            calls.append(text[: i + 1].endswith(_CALL))
        elif open_ and char == open_[-1]:
            open_.pop()
            calls.pop()
            if not open_:
                return i
    if ',' in text or start == 0:
        raise ValueError(f'{_shown(text)} has a bracket without its partner; text is put in quotes of its own')
    return len(text) - 1


def _shown(text: str) -> str:
    """The text for a message of one line."""
    text = ' '.join(text.split())
    return text if len(text) <= 200 else f'{text[:197]}...'
