"""Trained models for people who want results, not training."""

from .restoration import load_algorithm, restore_images

__all__ = ['load_algorithm', 'restore_images']
