"""Names of a package that are imported when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def imported_on_use(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names come from modules that are slow to import.

    Args:
        package: its `__name__`.
        names: module in it, or with a leading dot beside it -> what it defines. A name that is also a module's would mean
            that module once it is imported.
    """
    module_of = {name: module for module, defined in names.items() for name in defined}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(importlib.import_module(f'.{module_of[name]}', package), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
