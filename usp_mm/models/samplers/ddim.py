"""DDIM (arXiv 2010.02502) without noise, with diffusers' scheduler."""

from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from usp_mm.registry import MODELS

from ..objectives import DDPMObjective, Objective
from ..objectives.base import Denoise
from .base import OnStep, Sampler, StepNoise, at_least, denoise_at


@MODELS.register_module()
class DDIMSampler(Sampler[DDPMObjective]):
    """Deterministic sampler on the training steps 0, s, 2s, …, where s is the objective's steps / `num_steps`, as in DiT.

    Args:
        num_steps: Number of network calls; it must divide the number of training steps.

    Raises:
        ValueError: There are fewer than 2 steps.
    """

    objective_type = DDPMObjective

    def __init__(self, num_steps: int = 50) -> None:
        self.num_steps = at_least(num_steps, 2)

    def check(self, objective: Objective) -> None:
        super().check(objective)
        assert isinstance(objective, DDPMObjective)
        if objective.num_steps % self.num_steps:
            raise ValueError(
                f'num_steps={self.num_steps} of the sampler must divide the {objective.num_steps} of the objective: '
                'DDIM keeps every s-th step'
            )

    @torch.no_grad()
    def sample(
        self, denoise: Denoise, z: Tensor, objective: DDPMObjective, step_noise: StepNoise, on_step: OnStep | None = None
    ) -> Tensor:
        scheduler: Any  # type checkers see diffusers' stand-in for missing dependencies
        scheduler = DDIMScheduler(objective.num_steps, clip_sample=False, timestep_spacing='leading', steps_offset=0)
        scheduler.alphas_cumprod = objective.alpha_bar  # the same schedule, in float64
        scheduler.set_timesteps(self.num_steps)
        x = z
        for k, step in enumerate(scheduler.timesteps.tolist()):
            eps, _ = objective.split(denoise_at(denoise, x, step))
            x = scheduler.step(eps, step, x, eta=0.0).prev_sample
            if on_step is not None:
                on_step(k, x)
        return x

    @property
    def num_updates(self) -> int:
        return self.num_steps

    def describe(self) -> dict[str, Any]:
        return dict(name=type(self).__name__, num_steps=self.num_steps, eta=0.0)
