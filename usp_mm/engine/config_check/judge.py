"""Compare a config with those who take its parts."""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mmengine import registry as _registry
from mmengine.registry import DefaultScope, Registry

from usp_mm.presets import nearest

from .kinds import misfit
from .rules import ARGUMENTS, FREE, OWN_WAYS, Built, Called, Choice, Free, Loose, Named, Reads
from .signatures import Arguments, arguments

#: Of no signature.
_ALWAYS = {'type', '_scope_'}
#: Counts that make no sense below 1, whoever takes them.
_COUNTS = ('batch_size', 'max_epochs', 'max_iters', 'val_interval', 'accumulative_counts')


def judge(path: str, value: Any, rule: Any) -> None:
    """Compare what stands at `path` with its rule.

    Raises:
        ValueError: a type, a key or a kind of value that is not taken, with its place, what is, and the nearest name.
    """
    if isinstance(value, list | tuple):
        for i, one in enumerate(value):
            judge(f'{path}.{i}', one, rule)
        return
    if isinstance(rule, Choice) and isinstance(value, Mapping):
        rule = rule.choose(value)
    if isinstance(value, str | int | float):
        if isinstance(rule, Built | Reads | Choice) and rule not in ARGUMENTS.values():  # where there is no annotation
            raise ValueError(f'{path}={value!r} must be a dict')
        return
    if not isinstance(value, Mapping) or isinstance(rule, Free):
        return
    if isinstance(rule, Named):
        for name, one in value.items():
            judge(f'{path}.{name}', one, rule.also.get(name, rule.rule))
    elif isinstance(rule, Reads):
        _check_keys(path, value, rule.keys, rule.code.__qualname__)
        for key, one in value.items():
            judge(f'{path}.{key}', one, rule.parts.get(key, FREE))
    elif isinstance(rule, Called):
        _judge_call(path, value, rule.target, rule.also, None)
    elif isinstance(rule, Built):
        _judge_built(path, value, rule)
    elif 'type' in value and isinstance(value['type'], str):
        _judge_built(path, value, Built(rule.registry or _registry.MODELS, anywhere=True))
    else:
        for key, one in value.items():
            judge(f'{path}.{key}', one, ARGUMENTS.get(key, rule))


def _judge_built(path: str, node: Mapping[str, Any], rule: Built) -> None:
    kind = node.get('type', rule.default)
    if kind is None:
        if node:
            raise ValueError(
                f'{path} has no type: expected dict(type=…) of the registry of {rule.registry.name}s, got {dict(node)}'
            )
        return
    target = find_type(kind, rule.registry, node.get('_scope_'), rule.anywhere) if isinstance(kind, str) else kind
    if target is None:
        raise ValueError(f"unknown type '{kind}' in {path}{nearest_type(kind, rule.registry, rule.anywhere)}")
    if callable(target):
        _judge_call(path, node, target, rule.also, rule.registry)


def _judge_call(
    path: str, node: Mapping[str, Any], target: Callable[..., Any], also: Mapping[str, Any], registry: Registry | None
) -> None:
    taken, name = arguments(target), getattr(target, '__name__', None) or getattr(target, 'func', target).__name__
    if not taken.open:
        _check_keys(path, node, {*taken.kinds, *also}, name)
    own: dict[str, Callable[..., Any]] = {}
    for cls in reversed(getattr(target, '__mro__', ())):
        own.update(vars(cls).get('ARGUMENTS_OF', {}))
    project = str(getattr(target, '__module__', '')).split('.')[0]
    for key, value in node.items():
        if key in _ALWAYS:
            continue
        place = f'{path}.{key}'
        _check_value(place, key, value, taken, name, exact=project in ('usp_mm', 'torch'))
        if key in own:
            rule: Any = Called(own[key]) if isinstance(value, Mapping) else FREE
        elif project in OWN_WAYS and (key == 'init_cfg' or key not in ARGUMENTS):
            rule = FREE
        else:
            rule = also.get(key) or ARGUMENTS.get(key) or Loose(registry)
        judge(place, value, rule)


def _check_keys(path: str, node: Mapping[str, Any], valid: Any, who: str) -> None:
    for key in node:
        if key not in valid and key not in _ALWAYS:
            raise ValueError(f"unknown key '{key}' in {path}: {who} takes {sorted(valid)}{nearest(key, valid)}")


def check_value(place: str, key: str, value: Any, target: Callable[..., Any]) -> None:
    """ValueError unless `value` is of the kind that `target` takes as its argument `key`."""
    _check_value(place, key, value, arguments(target), target.__name__)


def _check_value(place: str, key: str, value: Any, taken: Arguments, who: str, exact: bool = True) -> None:
    expected = misfit(value, taken.kinds[key], taken.defaults[key], exact) if key in taken.kinds else None
    if expected is None and key in _COUNTS and isinstance(value, int | float) and (value < 1 or value % 1):
        expected = 'an integer of 1 or more'
    if expected is not None:
        shown = dict(value) if isinstance(value, Mapping) else value
        raise ValueError(f'{place}={shown!r}: {who} takes {expected}')


@functools.cache
def _registries(scope: str) -> tuple[Registry, ...]:
    """Every registry: MMEngine's, and those that the project of a scope has besides."""
    project = vars(sys.modules.get(f'{scope}.registry', _registry))
    found = [one for module in (vars(_registry), project) for one in module.values() if isinstance(one, Registry)]
    return tuple(dict.fromkeys(found))


def _scoped(registry: Registry, scope: str | None = None) -> Registry:
    """The registry that a project has of this kind; the given one where it has none."""
    current = DefaultScope.get_current_instance()
    scope = scope or (current.scope_name if current else 'mmengine')
    if f'{scope}.registry' in sys.modules:
        return registry.children.get(scope, registry)
    with registry.switch_scope_and_registry(scope) as found:
        return found


def _everywhere(registry: Registry) -> list[Registry]:
    current = DefaultScope.get_current_instance()
    return [registry, *(one for one in _registries(current.scope_name if current else '') if one is not registry)]


def find_type(name: str, registry: Registry, scope: str | None = None, anywhere: bool = False) -> Callable[..., Any] | None:
    """What a registry, or (`anywhere`) else any other, calls `name`."""
    places = _everywhere(registry) if anywhere else [registry]
    return next((found for one in places if (found := _scoped(one, scope).get(name)) is not None), None)


def nearest_type(name: str, registry: Registry, anywhere: bool = False) -> str:
    """'; did you mean X?', of a registry or (`anywhere`) else of any other."""
    for registries in ([registry], _everywhere(registry) if anywhere else []):
        names = {known for one in registries for known in (*_scoped(one).module_dict, *one.module_dict)}
        if close := nearest(name, names):
            return close
    return ''
