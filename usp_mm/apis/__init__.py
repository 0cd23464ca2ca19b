"""Use trained models in Python: load, encode, classify, restore, segment and sample."""

from typing import TYPE_CHECKING

from usp_mm.renaming.lazy import imported_on_use

if TYPE_CHECKING:
    from usp_mm.sampling.draw import load_generator, sample_classes, sample_trajectory
    from usp_mm.sampling.file import write_samples
    from usp_mm.sampling.loaded import LoadedGenerator

    from .encoder import Encoder
    from .generator import Generator
    from .inference import image_config, inferencer
    from .pretrained import from_pretrained
    from .restoration import load_algorithm, restore_images
    from .segmentor import Segmentor

__all__ = [
    'Encoder',
    'Generator',
    'LoadedGenerator',
    'Segmentor',
    'from_pretrained',
    'image_config',
    'inferencer',
    'load_algorithm',
    'load_generator',
    'restore_images',
    'sample_classes',
    'sample_trajectory',
    'write_samples',
]

__getattr__ = imported_on_use(
    __name__,
    {
        'encoder': ['Encoder'],
        'generator': ['Generator'],
        'pretrained': ['from_pretrained'],
        'inference': ['image_config', 'inferencer'],
        '.sampling.loaded': ['LoadedGenerator'],
        'restoration': ['load_algorithm', 'restore_images'],
        'segmentor': ['Segmentor'],
        '.sampling.file': ['write_samples'],
        '.sampling.draw': ['load_generator', 'sample_classes', 'sample_trajectory'],
    },
)
