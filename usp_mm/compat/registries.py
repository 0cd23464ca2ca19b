"""Patches of MMEngine's registries, so that they find this package's types."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from usp_mm.compat.locations import add_locations, own_type

#: The projects whose registries can build this package's types.
PROJECTS = ('mmengine', 'mmpretrain', 'mmseg', 'mmagic', 'mmdet')


def register_on_import() -> None:
    """Make MMEngine's registries, and each project's, find this package's types as soon as they are imported.

    Reason: a registry asked for a name imports its own locations but not its parents'.
    Delete when: MMEngine's `Registry.get` also imports the locations of the parents that it searches.
    """
    for project in PROJECTS:
        wrapt.register_post_import_hook(add_locations, f'{project}.registry')


def own_types_first() -> None:
    """Let a project's registry find this package's types without importing all of the project.

    Reason: a registry imports all of its own locations before it looks for a type, and importing `mmagic.models` takes longer
    than building a generator, which needs nothing of it. No project has a type of the same name.
    Delete when: MMEngine's `Registry.get` imports a registry's locations one after the other until it finds the type.
    """
    wrapt.register_post_import_hook(_look_here_first, 'mmengine.registry.registry')


def _look_here_first(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, 'Registry.get')
    def get(wrapped: Callable[..., Any], instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        key = args[0] if args else kwargs['key']
        unscoped = isinstance(key, str) and '.' not in key and instance.parent is not None
        return (own_type(instance, key) if unscoped and not instance._imported else None) or wrapped(*args, **kwargs)
