"""Converters between this package's checkpoints and those of other projects."""

from .convert import convert
from .entries import ConversionReport
from .kinds import KINDS
from .official import from_official, to_official
from .targets import TARGETS

__all__ = ['KINDS', 'TARGETS', 'ConversionReport', 'convert', 'from_official', 'to_official']
