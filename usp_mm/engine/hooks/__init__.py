"""Hooks that MMEngine lacks, one a file: those of checkpoints, resuming and records lie in the packages of these names.

Importing this package imports none of them: `usp_mm.engine` registers all.
"""

from typing import TYPE_CHECKING

from usp_mm.renaming.lazy import imported_on_use

if TYPE_CHECKING:
    from ..runner_parts import built_loops, datasets_of, loaders_of, metrics_of, resuming, unwrapped
    from .batch_norm_mean_hook import BatchNormMeanHook
    from .restoration_hook import RestorationHook
    from .seed_hook import StatelessSeedHook

__all__ = [
    'BatchNormMeanHook',
    'RestorationHook',
    'StatelessSeedHook',
    'built_loops',
    'datasets_of',
    'loaders_of',
    'metrics_of',
    'resuming',
    'unwrapped',
]

#: What lay in `usp_mm/engine/hooks.py` until it became this package.
__getattr__ = imported_on_use(
    __name__,
    {
        'batch_norm_mean_hook': ['BatchNormMeanHook'],
        'restoration_hook': ['RestorationHook'],
        'seed_hook': ['StatelessSeedHook'],
        '.runner_parts': ['built_loops', 'datasets_of', 'loaders_of', 'metrics_of', 'resuming', 'unwrapped'],
    },
)
