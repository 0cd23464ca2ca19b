"""Whether a value of a config is of the kind that an argument takes."""

import inspect
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = {int: 'an integer', float: 'a number', bool: 'True or False', str: 'text', dict: 'a dict'}


def misfit(value: Any, kind: Any, default: Any, exact: bool = True) -> str | None:
    """What was expected instead of `value`; None if it fits or the annotation leaves it open.

    Args:
        value: Value in the config.
        kind: Annotation of the argument, `inspect.Parameter.empty` if there is none.
        default: Default of the argument, `inspect.Parameter.empty` if there is none.
        exact: Whether annotations can be relied on. If False, only a string for a number or a list for a string is wrong.
    """
    if value is None or (default is not inspect.Parameter.empty and type(value) is type(default) and value == default):
        return None
    if kind is inspect.Parameter.empty:
        number = isinstance(default, int | float) and not isinstance(default, bool)
        return 'a number' if number and isinstance(value, str) else None
    if _fits(value, kind) or (not exact and not _plainly_wrong(value, kind)):
        return None
    expected = ' or '.join(dict.fromkeys(_type_names(kind)))
    if 'text' in expected and isinstance(value, list | tuple):
        expected += ' (a comma makes a list: in quotes of its own, KEY="\'…\'", it is text)'
    elif 'text' in expected:
        expected += f' (in quotes of its own, KEY="\'{value}\'", it is text)'
    return expected


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin is typing.Annotated:
        return _fits(value, parts[0])
    cls = origin or kind
    if value is None:
        return cls is type(None)
    if not inspect.isclass(cls) or cls is object:
        return True  # Any, a type variable, a forward reference
    if cls is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if cls is float:
        return isinstance(value, int | float)
    if cls is bool:
        return isinstance(value, bool) or value in (0, 1)
    if issubclass(cls, Mapping | Sequence) and cls is not str:  # upstream's annotations confuse the two
        listed = isinstance(value, list | tuple) and issubclass(cls, Sequence)
        return _elements_fit(value, parts) if listed else isinstance(value, Mapping | list | tuple)
    if isinstance(value, str):
        return cls is str or issubclass(cls, os.PathLike) or not _is_exact(cls)
    return isinstance(value, cls) or not isinstance(value, bool | int | float | list | tuple) or not _is_exact(cls)


def _plainly_wrong(value: Any, kind: Any) -> bool:
    wanted = set(typing.get_args(kind)) - {type(None)} or {kind}
    return wanted <= {int, float, bool} if isinstance(value, str) else wanted == {str} and isinstance(value, list | tuple)


def _is_exact(cls: type) -> bool:
    """Whether only instances of the class itself fit its annotation. torch's lr, for example, is a float or a Tensor."""
    return cls in (str, bytes, type(None)) or issubclass(cls, os.PathLike) or cls.__module__.split('.')[0] in ('torch', 'numpy')


def _elements_fit(values: Sequence[Any], parts: tuple[Any, ...]) -> bool:
    parts = tuple(part for part in parts if part is not Ellipsis)
    if len(parts) != 1:
        return len(parts) != len(values) or all(map(_fits, values, parts))
    return all(_fits(value, parts[0]) for value in values)


def _type_names(kind: Any) -> list[str]:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return [word for part in parts for word in _type_names(part)]
    if origin is typing.Literal:
        return [repr(part) for part in parts]
    if kind is type(None):
        return ['None']
    cls = origin or kind
    if inspect.isclass(cls) and issubclass(cls, Sequence) and cls is not str:
        inner = ' and '.join(dict.fromkeys(word for part in parts if part is not Ellipsis for word in _type_names(part)))
        return [f'a list of {inner}' if inner else 'a list']
    return [_NAMES.get(cls, getattr(cls, '__name__', str(cls)))]
