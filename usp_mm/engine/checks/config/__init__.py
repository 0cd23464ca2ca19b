"""Find misspelt keys and wrong values of a config before any long work starts."""

from .merge import merge_cfg_options
from .whole_config import check_config

__all__ = ['check_config', 'merge_cfg_options']
