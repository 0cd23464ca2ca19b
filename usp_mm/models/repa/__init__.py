"""Alignment of a denoiser's tokens with a frozen image encoder's (REPA, arXiv 2410.06940)."""

from .alignment import REPA
from .teacher import Teacher, build_teacher

__all__ = ['REPA', 'Teacher', 'build_teacher']
