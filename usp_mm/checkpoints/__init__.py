"""Converters between this package's checkpoints and those of other projects."""

from typing import TYPE_CHECKING

from usp_mm.renaming.lazy import imported_on_use

from .kinds import KINDS, TARGETS

if TYPE_CHECKING:
    from .conversion import convert
    from .conversion_data import ConversionReport
    from .official_names import from_official, to_official

__all__ = ['KINDS', 'TARGETS', 'ConversionReport', 'convert', 'from_official', 'to_official']

__getattr__ = imported_on_use(
    __name__,
    {'conversion': ['convert'], 'conversion_data': ['ConversionReport'], 'official_names': ['from_official', 'to_official']},
)
