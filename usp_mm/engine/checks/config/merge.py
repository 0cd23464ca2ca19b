"""Put `--cfg-options` into a config."""

from collections.abc import Iterator, Set
from typing import Any, NoReturn

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings

from usp_mm.presets import nearest
from usp_mm.vaes.settings import fold_older_keys, vae_name, vae_settings

from .faults import Faults
from .rules import PROJECTS, TOP, project_of, runner_keys
from .whole_config import check_installed, find_runner

#: MMEngine's key that asks for a dict to be replaced rather than merged.
_DELETE = '_delete_'
#: Hooks that MMEngine registers by itself, and leaves out where the config says None.
_OWN_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def merge_cfg_options(cfg: Config, options: dict[str, Any]) -> None:
    """Apply a user's `--cfg-options` as `cfg.merge_from_dict` does, with checks.

    New keys are left to `check_config`. An index equal to a list's length appends to it. `default_hooks.NAME=None` removes any
    hook, and `custom_imports` are imported, which MMEngine does only when it reads the file. `vae=NAME` keeps what else a dict
    `vae` has, except path and statistics of another VAE. Older keys of VAEs are replaced, in the config and in the options.

    Raises:
        ValueError: Nothing reads a top-level key, an index is out of range, or an option sets a part of a value that has no
            parts.
    """
    options = {key: ConfigDict(value=value).value for key, value in (options or {}).items()}
    _check_top(cfg, options)
    fold_older_keys(cfg._cfg_dict)
    options = _vae_as_dict(cfg, options)
    options = dict(sorted(options.items(), key=lambda item: item[0].count('.')))  # parts go on top of the whole, in any order
    for option, value in options.items():
        there = _make_way(cfg, option)
        if not _replace(cfg, option, value, there):
            cfg.merge_from_dict({option: value})
    fold_older_keys(cfg._cfg_dict)
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None and name not in _OWN_HOOKS]:
        del hooks[name]
    if any(option.split('.')[0] == 'custom_imports' for option in options) and cfg.custom_imports:
        import_modules_from_strings(**cfg.custom_imports)


def _check_top(cfg: Config, options: dict[str, Any]) -> None:
    check_installed(cfg.get('default_scope'))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        kind = options.get('runner_type', cfg.get('runner_type'))
        runner = find_runner(Config(dict(runner_type=kind)))
    read = runner_keys(runner)
    if read is None:
        return
    known, faults = read | set(TOP), Faults()
    for option in options:
        key = option.split('.')[0]
        if key in known or (key in cfg and project_of(runner) not in PROJECTS):  # such a runner may read any key
            continue
        with faults.of_a_part():
            _refuse_top(cfg, option, known)
    faults.tell()


def _refuse_top(cfg: Config, option: str, known: Set[str]) -> NoReturn:
    key = option.split('.')[0]
    if key not in cfg:
        raise ValueError(f"unknown key '{key}' in --cfg-options {option}: the config has {sorted(known)}{nearest(key, known)}")
    places = [place for place, value in _leaves(cfg._cfg_dict, '') if _is(value, cfg[key]) and place != key]
    places = [place for place in places if place.split('.')[0] in known]
    fix = f': set {" and ".join(places[:3])}' if places else ''
    raise ValueError(
        f"--cfg-options {option}: '{key}' is a variable of the config file, which has used it already, so that "
        f'setting it would change nothing{fix}'
    )


def _vae_as_dict(cfg: Config, options: dict[str, Any]) -> dict[str, Any]:
    """Let options set a `vae`, or parts of it, whether it is a name or a dict in the config."""
    for option in options:
        place, inside, _ = option.partition('.vae.')
        if inside and isinstance(part := _at(cfg._cfg_dict, place), dict):
            part['vae'] = vae_settings(part.get('vae'))
    done = {}
    for option, value in options.items():
        part = _at(cfg._cfg_dict, option.removesuffix('.vae')) if option.endswith('.vae') else None
        if isinstance(value, str) and isinstance(part, dict) and isinstance(part.get('vae'), dict):
            if value != vae_name(part):
                part['vae'] = {key: known for key, known in part['vae'].items() if key not in ('path', 'stats')}
            option = f'{option}.name'
        done[option] = value
    return done


def _at(node: Any, place: str) -> Any:
    """The part of a config at a place such as 'model.backbone'; None if there is none."""
    for key in place.split('.'):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _make_way(cfg: Config, option: str) -> Any:
    """Check the path of an option, create or extend the list that it appends to, and return the current value."""
    parts = option.split('.')
    node: Any = cfg._cfg_dict
    for depth, part in enumerate(parts):
        where = '.'.join(parts[:depth])
        if isinstance(node, list | tuple):
            if not part.isdecimal() or int(part) > len(node) or (isinstance(node, tuple) and int(part) == len(node)):
                valid = [str(i) for i in range(len(node))]
                raise ValueError(f"unknown key '{part}' in --cfg-options {option}: {where} has {valid}, a list of {len(node)}")
            if isinstance(node, list) and int(part) == len(node):
                node.append(ConfigDict())
            node = node[int(part)]
        elif isinstance(node, dict):
            if node.get(part) is None and parts[depth + 1 : depth + 2] == ['0']:
                node[part] = []
            node = node.get(part)
        elif node is not None:
            raise ValueError(f'--cfg-options {option}: {where} is {node!r}, which has no parts: set {where} as a whole')
    return node


def _replace(cfg: Config, option: str, value: Any, there: Any) -> bool:
    """Set what MMEngine would not: an item of a list, and a dict where none is; whether it did. Two dicts are left to it.

    Raises:
        ValueError: The item is one of a tuple.
    """
    *parents, last = option.split('.')
    node: Any = cfg._cfg_dict
    for part in parents:
        node = node[int(part)] if isinstance(node, list | tuple) else (node or {}).get(part)
    if isinstance(node, tuple):
        where = '.'.join(parents)
        raise ValueError(f'--cfg-options {option}: {where} is {node!r}, a tuple: set {where} as a whole')
    both = isinstance(value, dict) and isinstance(there, dict)
    if isinstance(node, list) and not (both and not value.get(_DELETE)):
        node[int(last)] = _without_delete(value)
        return True
    if both:
        _settle(value, there)
    elif isinstance(node, dict) and isinstance(value, dict):
        node[last] = _without_delete(value)
        return True
    return False


def _settle(value: dict[Any, Any], there: dict[Any, Any]) -> None:
    """Move what MMEngine's merging of two dicts refuses: dicts where none is, and keys that are no text.

    A list stays where the keys of a dict number its items.
    """
    replaces = value.get(_DELETE)
    for key, one in list(value.items()):
        old = there.get(key)
        if replaces:
            value[key] = _without_delete(one)
        elif not isinstance(key, str):
            there[key] = Config._merge_a_into_b(one, old) if isinstance(one, dict) and isinstance(old, dict) else value[key]
            del value[key]
        elif isinstance(one, dict) and isinstance(old, dict):
            _settle(one, old)
        elif isinstance(one, dict) and not (
            isinstance(old, list) and all(isinstance(name, str) and name.isdecimal() for name in one)
        ):
            there[key] = _without_delete(value.pop(key))


def _without_delete(value: Any) -> Any:
    """The value without MMEngine's request to delete, in dicts at any depth."""
    if isinstance(value, dict):
        return ConfigDict({key: _without_delete(one) for key, one in value.items() if key != _DELETE})
    return [_without_delete(one) for one in value] if isinstance(value, list) else value


def _is(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the place and value of everything in a config, including dicts and lists."""
    if path:
        yield path, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _leaves(value, f'{path}.{key}' if path else str(key))
