"""List the keys of a config's dict that a class or function accepts, from its signature and its code."""

import ast
import functools
import inspect
import re
import textwrap
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Arguments:
    """The arguments that a callable takes by name.

    Attributes:
        kinds: Name -> annotation (`inspect.Parameter.empty` if there is none).
        defaults: Name -> default (`inspect.Parameter.empty` if there is none).
        open: Whether it accepts any other name too.
        owners: Name -> the class, among the callable and its bases, whose `__init__` takes the argument.
    """

    kinds: dict[str, Any]
    defaults: dict[str, Any]
    open: bool
    owners: dict[str, type] = field(default_factory=dict)


@functools.cache
def arguments(target: Callable[..., Any]) -> Arguments:
    """Arguments of a function, or of a class and of those bases that its `**kwargs` reach."""
    if not inspect.isclass(target):
        kinds, defaults, is_open = _own(target)
        return Arguments(kinds, defaults, is_open)
    kinds, defaults, is_open = {}, {}, False
    owners: dict[str, type] = {}
    constructed = _constructed(target)
    for cls in target.__mro__:
        if '__init__' not in vars(cls) or cls is object:
            continue
        if cls is nn.Module:
            is_open = False  # its `**kwargs` are refused
            break
        own_kinds, own_defaults, is_open = _own(vars(cls)['__init__'])
        kinds, defaults = {**own_kinds, **kinds}, {**own_defaults, **defaults}
        owners = {**dict.fromkeys(own_kinds, cls), **owners}
        if not is_open:
            break
        popped, elsewhere = _keywords(vars(cls)['__init__'])
        kinds.update(dict.fromkeys(popped - kinds.keys(), inspect.Parameter.empty))
        defaults.update(dict.fromkeys(popped - defaults.keys(), inspect.Parameter.empty))
        owners = {**dict.fromkeys(popped, cls), **owners}
        if elsewhere:
            break
    if constructed is None:
        return Arguments(kinds, defaults, is_open, owners)
    kinds, defaults = {**constructed.kinds, **kinds}, {**constructed.defaults, **defaults}
    narrowed = target.__init__ is not object.__init__ and type(target).__call__ is type.__call__  # both get all arguments
    return Arguments(kinds, defaults, is_open if narrowed else constructed.open, owners)


def _constructed(cls: type) -> Arguments | None:
    """Arguments that the `__new__` or metaclass of a class takes, as for a NamedTuple; None if the class has neither."""
    takers = vars(object)['__new__'], vars(type)['__call__']
    return None if (cls.__new__, type(cls).__call__) == takers else Arguments(*_own(cls))


def _own(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # implemented in C
        return {}, {}, True
    try:  # those of a class are its attributes'
        hints = {} if inspect.isclass(function) else typing.get_type_hints(getattr(function, 'func', function))
    except (NameError, TypeError, AttributeError):  # names that only type checkers import
        hints = {}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    written = {p.name: p.empty if isinstance(p.annotation, str) else p.annotation for p in named}
    kinds = {p.name: hints.get(p.name, written[p.name]) for p in named if p.name != 'self'}
    return kinds, {p.name: p.default for p in named}, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _keywords(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """The keys that an `__init__` takes from its `**kwargs`, and whether it may do more with them than pass them to a base."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):  # no source, as in a frozen installation
        return set(), True
    name = tree.args.kwarg.arg if isinstance(tree, ast.FunctionDef) and tree.args.kwarg else None
    if name is None:
        return set(), True
    popped, harmless = set(), set()
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        owner, first = call.func.value, call.args[0] if call.args else None
        if call.func.attr == '__init__':
            harmless |= {id(keyword.value) for keyword in call.keywords if keyword.arg is None}
        elif isinstance(owner, ast.Name) and owner.id == name and isinstance(first, ast.Constant):
            harmless.add(id(owner))
            popped.add(str(first.value))
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    return popped, any(id(node) not in harmless for node in uses)


@functools.cache
def keys_read(code: Callable[..., Any], name: str) -> frozenset[str] | None:
    """Keys of the dict `name` that appear in the source of a function, or of a class and its bases; None without source.

    This is for dicts that OpenMMLab reads key by key (`env_cfg.get('cudnn_benchmark')`), where no signature lists the keys.
    """
    parts = [cls for cls in code.__mro__ if cls.__module__ != 'builtins'] if inspect.isclass(code) else [code]
    try:
        text = '\n'.join(map(inspect.getsource, parts))
    except (OSError, TypeError):
        return None
    patterns = (
        rf'\b{name}(?:\.(?:get|pop|setdefault)\(|\[)\s*[\'"](\w+)[\'"]',
        rf'[\'"](\w+)[\'"]\s+(?:not\s+)?in\s+(?:self\.)?{name}\b(?![\[.])',
    )
    return frozenset(key for pattern in patterns for key in re.findall(pattern, text))
