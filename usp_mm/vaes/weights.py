"""Weights from a file, as data and never as code."""

from usp_mm.weight_files import read_weights

__all__ = ['read_weights']
