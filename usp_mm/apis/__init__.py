"""Trained models for people who want results, not training."""

from .inference import image_config, inferencer
from .origin import Origin, note_origin, origin_of
from .restoration import load_algorithm, restore_images
from .sample_file import write_samples
from .sampling import load_generator, sample_classes, sample_trajectory

__all__ = [
    'Origin',
    'image_config',
    'inferencer',
    'load_algorithm',
    'load_generator',
    'note_origin',
    'origin_of',
    'restore_images',
    'sample_classes',
    'sample_trajectory',
    'write_samples',
]
