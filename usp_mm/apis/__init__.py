"""Trained models for people who want results, not training."""

from typing import TYPE_CHECKING

from usp_mm.lazy import imported_on_use

if TYPE_CHECKING:
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

__getattr__ = imported_on_use(
    __name__,
    {
        'inference': ['image_config', 'inferencer'],
        'origin': ['Origin', 'note_origin', 'origin_of'],
        'restoration': ['load_algorithm', 'restore_images'],
        'sample_file': ['write_samples'],
        'sampling': ['load_generator', 'sample_classes', 'sample_trajectory'],
    },
)
