"""Names of a package that are imported when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def imported_on_use(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package that imports its slow modules only when one of their names is used.

    Args:
        package: `__name__` of the package.
        names: Module inside the package (with a leading dot: beside it) -> the names to take from it. A name must not be
            that of a module in the package, since importing that module would hide it.
    """
    module_of = {name: module for module, defined in names.items() for name in defined}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(importlib.import_module(f'.{module_of[name]}', package), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
