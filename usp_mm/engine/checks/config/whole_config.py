"""Check every key of a config: `check_config`."""

import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

from mmengine import registry as _registry
from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope
from mmengine.runner import FlexibleRunner, Runner

from usp_mm.detection.packages import check_detection_packages
from usp_mm.fileio.addresses import local_file
from usp_mm.presets import nearest

from .faults import Faults
from .rules import PROJECTS, TOP, project_of, runner_keys
from .schedule import check_schedule
from .unknown_keys import check_part, check_value, find_type, nearest_type

#: Those of MMEngine's that keep whole checkpoints.
STRATEGIES = ('SingleDeviceStrategy', 'DDPStrategy')
#: Projects that the base install lacks -> the extra of this package that brings them.
EXTRAS = {'mmagic': 'gen', 'mmseg': 'seg'}
EVALUATORS = ('val_evaluator', 'test_evaluator')
LOG_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')


def check_config(cfg: Config, initialises: bool = True, evaluates: bool = True) -> None:
    """Compare every part of a config with the signature of its class, or with the keys that MMEngine's code reads.

    Args:
        cfg: Config to check; it is not changed.
        initialises: Whether weights will be initialised, so that `init_cfg` has to name its checkpoint.
        evaluates: Whether evaluators will be built. If False, evaluators in the config are not checked, since importing
            mmagic's takes seconds.

    Raises:
        ValueError: A type, key or kind of value is not accepted (the message has a line for each, with its place and the
            nearest valid name), this kind of runner would ignore a setting, a checkpoint is not set, or training ends before
            a scheduler begins.
        FileNotFoundError: A checkpoint does not exist.
        ImportError: The project that the config's scope names is not installed.
    """
    check_installed(cfg.get('default_scope'))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        runner = find_runner(cfg)
        _check_needed(cfg)
        _check_ignored(cfg, runner)
        faults = Faults()
        for key, value in cfg.items():
            with faults.of_a_part():
                if isinstance(value, str | int | float):
                    check_value(key, key, value, Runner.build_logger if key == 'log_level' else runner)
                if key in TOP and (evaluates or key not in EVALUATORS):
                    check_part(key, value, TOP[key])
        faults.tell()
    _check_strategy(cfg)
    check_schedule(cfg)
    if initialises:
        for path, node in _typed_dicts(cfg._cfg_dict, ''):
            if node['type'] == 'USPPretrained':
                _check_checkpoint(path, node)


def check_installed(scope: str | None) -> None:
    """Raise an ImportError that names the extra to install if the scope's project is missing.

    MMEngine would only warn, and look for the types among its own.
    """
    if scope == 'mmdet':
        check_detection_packages()
    if scope not in EXTRAS:
        return
    try:
        found = importlib.util.find_spec(scope) is not None
    except ImportError:
        found = False
    if not found:
        raise ImportError(
            f"default_scope='{scope}' of the config needs {scope}: pip install '.[{EXTRAS[scope]}]' in the checkout of usp_mm"
        )


def find_runner(cfg: Config) -> type[Runner] | type[FlexibleRunner]:
    """The class that `runner_type` names; MMEngine's Runner by default.

    Raises:
        ValueError: The class does not exist.
    """
    name = cfg.get('runner_type') or 'Runner'
    runner = find_type(name, RUNNERS) if isinstance(name, str) else name
    if not (isinstance(runner, type) and hasattr(runner, 'from_cfg')):
        raise ValueError(f"unknown runner_type '{name}'{nearest_type(str(name), RUNNERS)}")
    return runner


def _check_needed(cfg: Config) -> None:
    """Check values that MMEngine does not validate before it uses them."""
    for key in ('model', 'env_cfg', 'randomness'):
        if key in cfg and not isinstance(cfg[key], dict):
            raise ValueError(f'{key}={cfg[key]!r} must be a dict')
    seed, level = (cfg.get('randomness') or {}).get('seed'), cfg.get('log_level', 'INFO')
    if isinstance(seed, str | float) or (isinstance(seed, int) and not 0 <= seed < 2**32):  # mmagic has a list of them
        raise ValueError(f'randomness.seed={seed!r} must be an integer from 0 to 2^32 - 1, or None')
    if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
        raise ValueError(f'log_level={level!r} must be one of {", ".join(LOG_LEVELS)}{nearest(level.upper(), LOG_LEVELS)}')


def _check_ignored(cfg: Config, runner: type) -> None:
    """Refuse settings that only the other one of MMEngine's runners reads and this one would ignore."""
    read = runner_keys(runner)
    if read is None or project_of(runner) not in PROJECTS:
        return
    for other in (Runner, FlexibleRunner):
        for key in sorted(((runner_keys(other) or read) - read) & cfg.keys()):
            if cfg[key]:
                raise ValueError(
                    f"{key} is set, but {runner.__name__} does not read it: set runner_type='{other.__name__}', which does, or "
                    f'leave {key} out'
                )


def _check_strategy(cfg: Config) -> None:
    kind = (cfg.get('strategy') or {}).get('type')
    found = find_type(kind, _registry.STRATEGIES) if isinstance(kind, str) else None
    if project_of(found) == 'mmengine' and kind not in STRATEGIES:
        raise ValueError(
            f"strategy.type '{kind}' needs GPUs and writes checkpoints that nothing here reads: use one of "
            f'{", ".join(STRATEGIES)}, or leave runner_type and strategy out'
        )


def misspelt_variables(cfg: Config) -> list[str]:
    """'NAME; did you mean …' for each variable of a config that nothing reads and that resembles a key that is read."""
    read = runner_keys(find_runner(cfg))
    if read is None:
        return []
    known = read | set(TOP)
    unread = [key for key, value in cfg.items() if key not in known and isinstance(value, dict | list)]
    return [f"'{key}'{close}" for key in unread if (close := nearest(key, known - cfg.keys(), cutoff=0.85))]


def _typed_dicts(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(node, dict):
        if 'type' in node and path:
            yield path, node
        for key, value in node.items():
            yield from _typed_dicts(value, f'{path}.{key}' if path else key)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _typed_dicts(value, f'{path}.{i}')


def _check_checkpoint(path: str, node: dict) -> None:
    checkpoint = node.get('checkpoint')
    if not checkpoint:
        raise ValueError(f'{path}.checkpoint is unset: give it in the config or with --cfg-options {path}.checkpoint=FILE')
    if not local_file(checkpoint).is_file():
        raise FileNotFoundError(f"{path}.checkpoint: no file at '{checkpoint}'")
