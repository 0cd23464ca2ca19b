"""Refuse unknown keys and wrong values of a config: compare each part with the class or function that takes it."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mmengine import registry as _registry
from mmengine.registry import DefaultScope, Registry

from usp_mm.presets import nearest

from .accepted_keys import Arguments, arguments, keys_read
from .faults import Faults
from .kinds import misfit
from .rules import (
    ALBUMENTATIONS,
    ARGUMENTS,
    COUNTS,
    FREE,
    OWN_WAYS,
    PROJECTS,
    Built,
    Called,
    Choice,
    Free,
    Guessed,
    Named,
    Reads,
    project_of,
)

#: Of no signature.
_ALWAYS = {'type', '_scope_'}


def check_part(path: str, value: Any, rule: Any) -> None:
    """Compare the value at `path` with its rule.

    Raises:
        ValueError: Types, keys or kinds of values are not accepted; the message has a line for each, with its place, its value
            and the nearest name.
    """
    if isinstance(value, list | tuple):
        _check_parts([(f'{path}.{i}', one, rule) for i, one in enumerate(value)])
        return
    if isinstance(rule, Choice) and isinstance(value, Mapping):
        rule = rule.choose(value)
    if isinstance(value, str | int | float):
        if isinstance(rule, Built | Reads | Choice) and rule not in ARGUMENTS.values():  # for arguments without annotation
            raise ValueError(f'{path}={value!r} must be a dict')
        return
    if not isinstance(value, Mapping) or isinstance(rule, Free):
        return
    if isinstance(rule, Named):
        _check_parts([(f'{path}.{name}', one, rule.also.get(name, rule.rule)) for name, one in value.items()])
    elif isinstance(rule, Reads):
        if (keys := keys_read(rule.code, rule.name)) is not None:
            _check_keys(path, value, keys, rule.code.__qualname__)
        _check_parts([(f'{path}.{key}', one, rule.parts.get(key, FREE)) for key, one in value.items()])
    elif isinstance(rule, Called):
        _judge_call(path, value, rule.target, rule.also, None, rule.open)
    elif isinstance(rule, Built):
        _judge_built(path, value, rule)
    elif isinstance(rule, Guessed):
        _judge_guessed(path, value, rule)


def _check_parts(parts: list[tuple[str, Any, Any]]) -> None:
    faults = Faults()
    for part in parts:
        with faults.of_a_part():
            check_part(*part)
    faults.tell()


def _judge_built(path: str, node: Mapping[str, Any], rule: Built) -> None:
    kind = node.get('type', rule.default)
    if kind is None:
        if node:
            raise ValueError(
                f'{path} has no type: expected dict(type=…) of the registry of {rule.registry.name}s, got {dict(node)}'
            )
        return
    target = find_type(kind, rule.registry, node.get('_scope_')) if isinstance(kind, str) else kind
    if target is None:
        raise ValueError(f"unknown type '{kind}' in {path}{nearest_type(kind, rule.registry)}")
    if callable(target):
        _judge_call(path, node, target, rule.also, rule.registry)


def _judge_guessed(path: str, node: Mapping[str, Any], rule: Guessed) -> None:
    kind, find = node.get('type'), _find_anywhere if rule.strict else _find_plain
    if isinstance(kind, str):
        target = find(kind, rule.registry, node.get('_scope_'))
        if target is None and rule.strict:
            raise ValueError(f"unknown type '{kind}' in {path}{nearest_type(kind, rule.registry, anywhere=True)}")
        if callable(target):
            _judge_call(path, node, target, rule.also, rule.registry)
            return
    _check_parts([(f'{path}.{key}', one, ARGUMENTS.get(key, rule) if rule.strict else rule) for key, one in node.items()])


def _judge_call(
    path: str,
    node: Mapping[str, Any],
    target: Callable[..., Any],
    also: Mapping[str, Any],
    registry: Registry | None,
    is_open: bool = False,
) -> None:
    taken, name = arguments(target), getattr(target, '__name__', None) or getattr(target, 'func', target).__name__
    is_open, known, faults = taken.open or is_open, {*taken.kinds, *also}, Faults()
    if not is_open:
        with faults.of_a_part():
            _check_keys(path, node, known, name)
    for key, value in node.items():
        if key in _ALWAYS or not (is_open or key in known):
            continue
        place = f'{path}.{key}'
        with faults.of_a_part():
            _check_value(place, key, value, taken, name, exact=project_of(target) in ('usp_mm', 'torch'))
            owner = taken.owners.get(key, target)
            if project_of(owner) in PROJECTS:
                _check_count(place, key, value, target)
            check_part(place, value, also.get(key) or _rule(key, value, target, owner, registry or _registry.MODELS))
    faults.tell()


def _rule(key: str, value: Any, target: Callable[..., Any], owner: Callable[..., Any], registry: Registry) -> Any:
    """The rule for the argument `key` of `target`.

    `owner` is the class, or one of its bases, that takes the argument.
    """
    named = ARGUMENTS.get(key)
    if project_of(owner) not in PROJECTS:
        return FREE if named is FREE else Guessed(registry, strict=False, also=getattr(named, 'also', {}))
    for cls in getattr(target, '__mro__', ()):
        if key in vars(cls).get('ARGUMENTS_OF', {}):
            return Called(cls.ARGUMENTS_OF[key]) if isinstance(value, Mapping) else FREE
    other_ways = project_of(target) in OWN_WAYS and (key == 'init_cfg' or named is None)
    if other_ways or ALBUMENTATIONS.get(getattr(target, '__name__', '')) == key:
        return FREE
    return named or Guessed(registry)


def _check_keys(path: str, node: Mapping[str, Any], valid: Any, who: str) -> None:
    if unknown := [key for key in node if key not in valid and key not in _ALWAYS]:
        names = ', '.join(f"'{key}'" for key in unknown)
        close = ''.join(dict.fromkeys(nearest(key, valid) for key in unknown))
        raise ValueError(f'unknown key{"s" * (len(unknown) > 1)} {names} in {path}: {who} takes {sorted(valid)}{close}')


def check_value(place: str, key: str, value: Any, target: Callable[..., Any]) -> None:
    """Raise ValueError unless `value` is of the kind that `target` takes as its argument `key`."""
    taken = arguments(target)
    owner = taken.owners.get(key, target)
    _check_value(place, key, value, taken, target.__name__, exact=project_of(owner) in PROJECTS)


def _check_count(place: str, key: str, value: Any, target: Callable[..., Any]) -> None:
    counted = inspect.isclass(target) and any(issubclass(target, cls) and key in keys for cls, keys in COUNTS.items())
    if counted and isinstance(value, int | float) and (value < 1 or value % 1):
        raise ValueError(f'{place}={value!r}: {target.__name__} takes an integer of 1 or more')


def _check_value(place: str, key: str, value: Any, taken: Arguments, who: str, exact: bool) -> None:
    expected = misfit(value, taken.kinds[key], taken.defaults[key], exact) if key in taken.kinds else None
    if expected is not None:
        shown = dict(value) if isinstance(value, Mapping) else value
        raise ValueError(f'{place}={shown!r}: {who} takes {expected}')


@functools.cache
def _registries(scope: str) -> tuple[Registry, ...]:
    """MMEngine's registries, and any others that the project of a scope has."""
    project = vars(sys.modules.get(f'{scope}.registry', _registry))
    found = [one for module in (vars(_registry), project) for one in module.values() if isinstance(one, Registry)]
    return tuple(dict.fromkeys(found))


def _scoped(registry: Registry, scope: str | None = None) -> Registry:
    """A project's own registry of this kind, or the given one if the project has none."""
    current = DefaultScope.get_current_instance()
    scope = scope or (current.scope_name if current else 'mmengine')
    if f'{scope}.registry' in sys.modules:
        return registry.children.get(scope, registry)
    with registry.switch_scope_and_registry(scope) as found:
        return found


def _everywhere(registry: Registry) -> list[Registry]:
    current = DefaultScope.get_current_instance()
    return [registry, *(one for one in _registries(current.scope_name if current else '') if one is not registry)]


def find_type(name: str, registry: Registry, scope: str | None = None) -> Callable[..., Any] | None:
    """The class or function that a registry holds under `name`, or None."""
    return _scoped(registry, scope).get(name)


def _find_anywhere(name: str, registry: Registry, scope: str | None) -> Callable[..., Any] | None:
    """The class or function that a registry, or else any other registry, holds under `name`."""
    return next((found for one in _everywhere(registry) if (found := find_type(name, one, scope)) is not None), None)


def _find_plain(name: str, registry: Registry, scope: str | None) -> Callable[..., Any] | None:
    """The class whose own name is `name` (or PROJECT.name), in a registry or else in any other one.

    `name` may not be a type at all, so no module is imported to find it, and short names like 'BN' and 'zero', under which
    registries hold classes of torch, are not looked up.
    """
    project, _, plain = name.rpartition('.')
    if project and project not in PROJECTS:
        return None
    for one in _everywhere(registry):
        scoped = _scoped(one, project or scope)
        scoped.import_from_location()
        place: Registry | None = scoped
        while place is not None:
            found = place.module_dict.get(plain)
            if getattr(found, '__name__', None) == plain:
                return found
            place = place.parent
    return None


def nearest_type(name: str, registry: Registry, anywhere: bool = False) -> str:
    """'; did you mean X?' with the nearest name in a registry or, with `anywhere`, in any other one."""
    for registries in ([registry], _everywhere(registry) if anywhere else []):
        names = {known for one in registries for known in (*_scoped(one).module_dict, *one.module_dict)}
        if close := nearest(name, names):
            return close
    return ''
