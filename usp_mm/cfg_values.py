"""How the values of `--cfg-options KEY=VALUE` are written: numbers, text, lists, dicts.

What MMEngine's `DictAction` reads is read alike (`3`, `1e-3`, `True`, `None`, `a,b`, `[a,b]`, `[(1,2),[a,b]]`), but

- what stands in quotes of its own is text, as it is: `'/data/a b, c=d'`, `"8"`;
- spaces inside a value stay;
- `{'type': 'Mixup', 'alpha': 0.8}` is a dict, written as in Python, by itself or in a list.
"""

import ast
import re
from typing import Any

_PAIRS = {'(': ')', '[': ']', '{': '}'}
#: A quote at the beginning of a value, up to the same one at its end.
_QUOTED = re.compile(r"""\s*(['"])(.*?)\1\s*(?=,|$)""", re.DOTALL)


def parse_value(text: str) -> Any:
    """The value that a text stands for.

    Raises:
        ValueError: brackets without a partner, or a dict that is not written as in Python.
    """
    text = text.strip()
    if (quoted := _QUOTED.match(text)) and quoted.end() == len(text):
        return quoted[2]
    if text[:1] in _PAIRS and _closing(text) == len(text) - 1:
        if text[0] == '{':
            return _parse_dict(text)
        values = [parse_value(part) for part in _split(text[1:-1])]
        return tuple(values) if text[0] == '(' else values
    parts = _split(text)
    return [parse_value(part) for part in parts] if ',' in text and parts != [text] else _parse_word(text)


def quote_value(value: object) -> str:
    """The text by which `parse_value` gives `str(value)`, whatever is in it.

    Raises:
        ValueError: a text with both kinds of quotes before commas.
    """
    text = str(value)
    if parse_value_or_none(text) == text:
        return text
    for quote in ('"', "'"):
        if parse_value_or_none(f'{quote}{text}{quote}') == text:
            return f'{quote}{text}{quote}'
    raise ValueError(f'{text!r} cannot be written as an option: it has both kinds of quotes')


def parse_value_or_none(text: str) -> Any:
    """`parse_value`, None for what is no value."""
    try:
        return parse_value(text)
    except ValueError:
        return None


def _parse_word(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    return None if text == 'None' else text


def _parse_dict(text: str) -> dict[Any, Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"{text} is no dict as Python writes it ({{'key': value}}); text is put in quotes of its own"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{text} is a {type(value).__name__}, expected a dict ({{'key': value}})")
    return value


def _split(text: str) -> list[str]:
    """At the commas outside quotes and brackets; a last comma ends the list."""
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
    """Where the bracket at `start` is closed; the last place of `text` if it is a lone one in a single word.

    Raises:
        ValueError: nowhere, though there are commas.
    """
    open_, quote = [], ''
    for i in range(start, len(text)):
        char = text[i]
        if quote:
            quote = '' if char == quote else quote
        elif char in '\'"' and text[i - 1] in ' ([{,:':
            quote = char
        elif char in _PAIRS:
            open_.append(_PAIRS[char])
        elif open_ and char == open_[-1]:
            open_.pop()
            if not open_:
                return i
    if ',' in text or start == 0:
        raise ValueError(f'{text} has a bracket without its partner; text is put in quotes of its own')
    return len(text) - 1
