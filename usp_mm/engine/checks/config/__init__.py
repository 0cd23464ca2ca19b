"""Find misspelt keys and wrong values of a config before any long work starts."""

from .check import check_config
from .merge import merge_cfg_options

__all__ = ['check_config', 'merge_cfg_options']
