"""Stochastic sampling of flows (SiT, arXiv 2401.08740), with a single network call per evaluation of the drift."""

from typing import Any

import torch
from torch import Tensor

from usp_mm.functional import flow, sde
from usp_mm.presets import lookup
from usp_mm.registry import MODELS

from ..objectives import FlowObjective, Objective
from ..objectives.base import Denoise
from .base import OnStep, Sampler, StepNoise, at_least, denoise_at

METHODS = ('euler', 'heun')


@MODELS.register_module()
class SDESampler(Sampler[FlowObjective]):
    """Euler–Maruyama or Heun steps of equal length, and a noiseless last step.

    Velocity and score come from the same network output, so that 'euler' calls the network once per step and 'heun' twice.

    Args:
        method: 'euler' or 'heun'.
        num_steps: Number of points of the time grid; there are num_steps - 1 stochastic steps, followed by the last step.
        diffusion: Diffusion coefficient D, a key of `usp_mm.functional.sde.DIFFUSIONS`.
        last_step: 'mean', 'euler' or 'tweedie', see `usp_mm.functional.sde.last_step`. None omits the last step, and the grid
            then reaches the end of the path.
        last_step_size: Length of the last step, in (0, 1).

    Raises:
        ValueError: A name is unknown, or a number is out of range.
    """

    objective_type = FlowObjective

    def __init__(
        self,
        method: str = 'euler',
        num_steps: int = 250,
        diffusion: str = 'sigma',
        last_step: str | None = 'mean',
        last_step_size: float = 0.04,
    ) -> None:
        lookup(dict.fromkeys(METHODS), method, 'SDE method')
        lookup(sde.DIFFUSIONS, diffusion, 'diffusion')
        if last_step is not None:
            lookup(dict.fromkeys(sde.LAST_STEPS), last_step, 'last_step')
        if not 0 < last_step_size < 1:
            raise ValueError(f'last_step_size={last_step_size} must lie between 0 and 1 (last_step=None leaves the step out)')
        self.method, self.num_steps, self.diffusion = method, at_least(num_steps, 2), diffusion
        self.last_step, self.last_step_size = last_step, last_step_size

    def check(self, objective: Objective) -> None:
        super().check(objective)
        assert isinstance(objective, FlowObjective)
        first, last = self._interval(objective)
        if first >= last:
            raise ValueError(f'last_step_size={self.last_step_size} leaves no time after the start at {first}')
        if objective.path == 'vp' or objective.prediction != 'velocity':
            return  # their grids stay away from both ends
        if self.diffusion == 'sbdm':
            raise ValueError(
                f"diffusion='sbdm' is infinite at t = 0, where prediction='velocity' starts on path '{objective.path}': "
                f"use 'sigma', or a noise or score prediction"
            )
        if self.last_step is None and self.method == 'heun':
            raise ValueError(
                "method='heun' with last_step=None needs the score at t = 1, where a velocity does not determine it: "
                "use last_step='mean', or method='euler'"
            )

    @torch.no_grad()
    def sample(
        self, denoise: Denoise, z: Tensor, objective: FlowObjective, step_noise: StepNoise, on_step: OnStep | None = None
    ) -> Tensor:
        grid = torch.linspace(*self._interval(objective), self.num_steps, dtype=torch.float64)
        dt, times, c = grid[1] - grid[0], grid.tolist(), objective.coefficients(grid)
        diffusion = sde.DIFFUSIONS[self.diffusion](grid, c)
        drift = sde.sde_drift(c, objective.prediction, diffusion)
        euler, std = sde.step(drift, dt), (2 * diffusion * dt).sqrt().tolist()
        last = None
        if self.last_step is not None:
            end = flow.Coefficients(*(value[-1] for value in c))
            last = sde.last_step(self.last_step, end, objective.prediction, diffusion[-1], self.last_step_size)

        def call(x: Tensor, k: int) -> Tensor:
            return denoise_at(denoise, x, times[k]).float()

        x = z
        for k in range(self.num_steps - 1):
            if self.method == 'euler':
                x = _at(euler, k)(x, call(x, k)) + std[k] * step_noise(k)
            else:
                x = x + std[k] * step_noise(k)
                here = _at(drift, k)(x, call(x, k))
                ahead = x + dt * here
                x = x + dt / 2 * (here + _at(drift, k + 1)(ahead, call(ahead, k + 1)))
            if on_step is not None:
                on_step(k, x)
        if last is not None:
            x = last(x, call(x, self.num_steps - 1))
            if on_step is not None:
                on_step(self.num_steps - 1, x)
        return x

    def _interval(self, objective: FlowObjective) -> tuple[float, float]:
        first, last = flow.sample_interval(objective.path, objective.prediction)
        return first, last if self.last_step is None else 1 - self.last_step_size

    @property
    def num_updates(self) -> int:
        return self.num_steps - (self.last_step is None)

    def describe(self) -> dict[str, Any]:
        size = dict(last_step_size=self.last_step_size) if self.last_step is not None else {}
        settings = ('method', 'num_steps', 'diffusion', 'last_step')
        return dict(name=type(self).__name__, **{key: getattr(self, key) for key in settings}, **size)


def _at(mix: flow.Mix, k: int) -> flow.Mix:
    return flow.Mix(mix.x[k], mix.out[k])
