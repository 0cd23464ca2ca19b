"""What a denoiser is trained to predict, and how its predictions are to be read."""

from .base import Objective
from .ddpm import DDPMObjective
from .flow import FlowObjective

__all__ = ['DDPMObjective', 'FlowObjective', 'Objective']
