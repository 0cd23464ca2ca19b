"""From noise to latents, with a trained denoiser."""

from .ancestral import AncestralSampler
from .base import Sampler
from .ddim import DDIMSampler
from .ode import ODESampler
from .sde import SDESampler

__all__ = ['AncestralSampler', 'DDIMSampler', 'ODESampler', 'SDESampler', 'Sampler']
