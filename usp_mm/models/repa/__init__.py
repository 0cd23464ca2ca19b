"""Alignment of a denoiser's tokens with those of a frozen image encoder (REPA, arXiv 2410.06940)."""

from .alignment import REPA
from .teacher import Teacher, build_teacher

__all__ = ['REPA', 'Teacher', 'build_teacher']
