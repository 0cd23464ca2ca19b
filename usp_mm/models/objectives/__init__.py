"""Training objectives: what a denoiser is trained to predict, and how its output is interpreted."""

from .base import Objective
from .ddpm import DDPMObjective
from .flow import FlowObjective

__all__ = ['DDPMObjective', 'FlowObjective', 'Objective']
