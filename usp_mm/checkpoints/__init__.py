"""Converters between this package's state dicts and those of other projects."""

from .official import from_official, to_official

__all__ = ['from_official', 'to_official']
