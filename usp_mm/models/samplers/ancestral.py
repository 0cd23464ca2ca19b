"""DDPM's ancestral sampler with fewer steps than in training (arXiv 2102.09672, section 4)."""

import torch
from torch import Tensor

from usp_mm.functional import ddpm
from usp_mm.registry import MODELS

from ..objectives import DDPMObjective, Objective
from ..objectives.base import Denoise
from .base import OnStep, Sampler, StepNoise, at_least, denoise_at


@MODELS.register_module()
class AncestralSampler(Sampler[DDPMObjective]):
    """Draws x_{t-1} from the network's prediction for x_t, at evenly spaced steps from the last to 0, without clipping.

    This is diffusers' `DDPMScheduler(variance_type='learned_range', timestep_spacing='linspace', clip_sample=False)`, except
    that diffusers draws the noise itself, so that a sample would depend on its batch. The steps are always those of ADM's and
    DiT's code; for some odd numbers of steps, one of diffusers' is off by 1.

    Args:
        num_steps: Number of network calls. All steps but the last are stochastic.

    Raises:
        ValueError: There are fewer than 2 steps.
    """

    objective_type = DDPMObjective

    def __init__(self, num_steps: int = 250) -> None:
        self.num_steps = at_least(num_steps, 2)

    def check(self, objective: Objective) -> None:
        super().check(objective)
        assert isinstance(objective, DDPMObjective)
        if self.num_steps > objective.num_steps:
            raise ValueError(f'num_steps={self.num_steps} of the sampler exceeds the {objective.num_steps} of the objective')

    @torch.no_grad()
    def sample(
        self, denoise: Denoise, z: Tensor, objective: DDPMObjective, step_noise: StepNoise, on_step: OnStep | None = None
    ) -> Tensor:
        timesteps = ddpm.spaced_timesteps(objective.num_steps, self.num_steps)
        schedule, steps, x = ddpm.schedule(objective.alpha_bar[timesteps]), timesteps.tolist(), z
        for k, row in enumerate(reversed(range(self.num_steps))):
            eps, fraction = objective.split(denoise_at(denoise, x, steps[row]))
            x = ddpm.ancestral_step(schedule.at(row), x, eps, fraction, step_noise(k) if row > 0 else None)
            if on_step is not None:
                on_step(k, x)
        return x

    @property
    def num_updates(self) -> int:
        return self.num_steps
