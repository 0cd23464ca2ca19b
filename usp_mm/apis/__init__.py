"""Trained models for people who want results, not training."""

from .restoration import load_algorithm, restore_images
from .sample_file import write_samples
from .sampling import load_generator, sample_classes, sample_trajectory

__all__ = ['load_algorithm', 'load_generator', 'restore_images', 'sample_classes', 'sample_trajectory', 'write_samples']
