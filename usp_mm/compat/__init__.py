"""Every patch of an upstream library, each with its reason and the condition for deleting it.

`apply()` runs on `import usp_mm`. A patch does nothing where upstream works. No patch imports the library that it changes:
it is applied when the library is first imported, so that `import usp_mm` imports neither torch nor MMEngine.
"""

import functools

from .diffusers import diffusers_dit_times, diffusers_without_transformers
from .mmagic import diffusers_moved, mmagic_optional_packages, mmcv_ext, numpy_bool8
from .mmengine import (
    checkpoint_files,
    configs_formatted_once,
    epochs_without_batches,
    index_of_class_balanced,
    last_checkpoint_in_its_folder,
    latest_validation_loss,
    loader_settings_without_effect,
    no_noise,
    signals_of_loader_processes,
)
from .model_index import configs_by_name
from .registries import own_types_first, register_on_import
from .torch import addresses_of_a_restart, checkpoint_globals, index_of_subset, lost_batches, torchvision_schemas

__all__ = ['apply']


@functools.cache
def apply() -> None:
    """Apply every patch; a second call does nothing."""
    torchvision_schemas()
    mmcv_ext()
    numpy_bool8()
    diffusers_moved()
    diffusers_without_transformers()
    mmagic_optional_packages()
    checkpoint_globals()
    checkpoint_files()
    diffusers_dit_times()
    epochs_without_batches()
    loader_settings_without_effect()
    lost_batches()
    addresses_of_a_restart()
    index_of_subset()
    index_of_class_balanced()
    register_on_import()
    own_types_first()
    configs_formatted_once()
    configs_by_name()
    last_checkpoint_in_its_folder()
    latest_validation_loss()
    no_noise()
    signals_of_loader_processes()
