"""Placeholder modules for modules that are not installed or were moved: `usp_mm.compat`, `usp_mm.renaming.modules`."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _folders(package: str) -> list[str]:
    """The folders of a top-level package, without importing it (empty if absent)."""
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or []) if spec else []


def exists(module: str) -> bool:
    """Whether a dotted module is imported or can be found, without importing any of its parents."""
    if module in sys.modules:
        return True
    package, *parts = module.split('.')
    folders = _folders(package)
    for depth in range(2, len(parts) + 2):
        spec = PathFinder.find_spec('.'.join([package, *parts][:depth]), folders)
        if spec is None:
            return False
        folders = list(spec.submodule_search_locations or [])
    return True


def placeholder(name: str, attribute: Callable[[str], Any]) -> None:
    """Put a module into `sys.modules` that computes each public attribute as `attribute(attribute_name)`."""

    def __getattr__(key: str) -> Any:
        if key.startswith('__'):
            raise AttributeError(f'module {name!r} has no attribute {key!r}')
        return attribute(key)

    module: Any = ModuleType(name, 'Placeholder made by usp_mm.')
    module.__spec__ = ModuleSpec(name, loader=None)
    module.__getattr__ = __getattr__
    sys.modules[name] = module


def missing(name: str, fix: str) -> Callable[..., Any]:
    """Make a function that raises an ImportError with the text 'NAME: FIX' when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        raise ImportError(f'{name}: {fix}')

    return call
