"""Register this package's types with the registries of every OpenMMLab project.

Nothing heavy is imported until a registry is first asked for a type (`locations` is MMEngine's own mechanism for that).
"""

import importlib
from types import ModuleType
from typing import Any

#: The module that registers this package's types, for each kind of registry.
LOCATIONS = {
    'MODELS': 'usp_mm.models',
    'DATASETS': 'usp_mm.datasets',
    'DATA_SAMPLERS': 'usp_mm.datasets',
    'TRANSFORMS': 'usp_mm.datasets',
    'HOOKS': 'usp_mm.engine',
    'LOOPS': 'usp_mm.engine',
    'METRICS': 'usp_mm.evaluation',
    'OPTIMIZERS': 'usp_mm.engine',
    'OPTIM_WRAPPERS': 'usp_mm.engine',
    'VISBACKENDS': 'usp_mm.engine',
}
#: Further modules for the registries of a single project, which import that project.
PROJECT_LOCATIONS = {
    'mmseg.registry': dict.fromkeys(('MODELS', 'DATASETS', 'VISUALIZERS'), 'usp_mm.segmentation'),
    'mmdet.registry': dict(MODELS='usp_mm.detection.detector', DATASETS='usp_mm.detection.datasets'),
}


def add_locations(module: ModuleType) -> None:
    """Let the registries in `module` (`mmengine.registry` or a project's) import this package's modules on first use."""
    for name, location in [*LOCATIONS.items(), *PROJECT_LOCATIONS.get(module.__name__, {}).items()]:
        registry = getattr(module, name, None)
        if registry is not None and location not in registry._locations:
            # a new list: MMEngine's registries without locations share one default list
            registry._locations = [*registry._locations, location]
            registry._imported = False


def own_type(registry: Any, key: str) -> Any:
    """This package's type of a name, from a registry or its parents; None if the name is another's."""
    for location in registry._locations:
        if location in LOCATIONS.values():
            importlib.import_module(location)
    while registry.parent is not None and key not in registry._module_dict:
        registry = registry.parent
    found = registry._module_dict.get(key)
    return found if getattr(found, '__module__', '').startswith('usp_mm.') else None
