"""The registries to which this package adds its types.

Types go into MMEngine's root registries, which are the parents of mmpretrain's, mmseg's and mmagic's: one registration
serves all three scopes by bare name. `usp_mm.compat.locations` names the modules that these projects import.
"""

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
    'TRANSFORMS',
]  # fmt: skip
