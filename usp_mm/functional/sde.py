"""Stochastic sampling along the paths of `flow`: dx = (velocity + D·score) dt + √(2D) dW (SiT, arXiv 2401.08740).

Any D >= 0 keeps the distribution at each t; D = 0 is the probability flow. Times and coefficients are float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .flow import Coefficients, Mix, drift_variance, score, velocity

#: Name -> D as a function of the times and the path's coefficients. 'sbdm' reverses the path's forward diffusion.
DIFFUSIONS: dict[str, Callable[[Tensor, Coefficients], Tensor]] = {
    'sigma': lambda t, c: c.sigma,
    'linear': lambda t, c: 1 - t,
    'decreasing': lambda t, c: 0.25 * (torch.cos(math.pi * t) + 1).square(),
    'increasing-decreasing': lambda t, c: torch.sin(math.pi * t).square(),
    'constant': lambda t, c: torch.ones_like(t),
    'sbdm': lambda t, c: drift_variance(c),
}
LAST_STEPS = ('mean', 'euler', 'tweedie')


def sde_drift(c: Coefficients, prediction: str, diffusion: Tensor) -> Mix:
    """The drift, velocity + D·score, as a combination of the state and one network output."""
    v, s = velocity(c, prediction), score(c, prediction)
    return Mix(v.x + diffusion * s.x, v.out + diffusion * s.out)


def step(drift: Mix, dt: Tensor | float) -> Mix:
    """One Euler step along the drift: x + drift·dt."""
    return Mix(1 + drift.x * dt, drift.out * dt)


def last_step(kind: str, c: Coefficients, prediction: str, diffusion: Tensor, size: float) -> Mix:
    """The last step of length `size`, which adds no noise and ends at the data.

    `kind` is 'mean' (along the drift), 'euler' (along the velocity) or 'tweedie' (the expectation of x1, (x + σ²·score)/α).
    """
    if kind == 'tweedie':
        s, variance = score(c, prediction), c.sigma.square()
        return Mix((1 + variance * s.x) / c.alpha, variance * s.out / c.alpha)
    return step(sde_drift(c, prediction, diffusion) if kind == 'mean' else velocity(c, prediction), size)
