"""Where this package's types are registered, and how every OpenMMLab project finds them.

Types go into MMEngine's root registries, which are the parents of mmpretrain's, mmseg's and
mmagic's: one registration serves all three scopes by bare name. Nothing heavy is imported until
a registry is first asked for a type (`locations` is MMEngine's own mechanism for that).
"""

from mmengine import registry as _root
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    TRANSFORMS,
)

__all__ = [
    'DATASETS', 'DATA_SAMPLERS', 'EVALUATOR', 'HOOKS', 'LOOPS', 'METRICS', 'MODELS', 'OPTIMIZERS', 'OPTIM_WRAPPERS',
    'TRANSFORMS', 'add_locations',
]  # fmt: skip

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
}
#: More of them for the registries of one project, whose import they need.
PROJECT_LOCATIONS = {
    'mmseg.registry': dict.fromkeys(('MODELS', 'DATASETS'), 'usp_mm.segmentation'),
}


def add_locations(module=_root) -> None:
    """Let the registries of `module` (`mmengine.registry` or a project's) import ours on first use."""
    for name, location in [*LOCATIONS.items(), *PROJECT_LOCATIONS.get(module.__name__, {}).items()]:
        registry = getattr(module, name, None)
        if registry is not None and location not in registry._locations:
            # a new list: MMEngine's registries without locations share one default list
            registry._locations = [*registry._locations, location]
            registry._imported = False
