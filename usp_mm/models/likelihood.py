"""Log-likelihood of latents under a flow, by the instantaneous change of variables.

Along the velocity v, d log p(x_t) / dt = -div v (Chen et al., arXiv 1806.07366, theorem 1); the divergence is estimated with
one random vector per sample (Hutchinson; FFJORD, arXiv 1810.01367, eq. 7), which stays the same along the path. The official
SiT computes the same quantity with `--likelihood`, but draws a new vector at every evaluation.

Shape legend: N samples, C×h×w latent.
"""

import math

import torch
from torch import Tensor

from .objectives import FlowObjective
from .objectives.base import Denoise
from .samplers.ode import GIVES_UP, ODESampler, VelocityField, odeint


def log_likelihood(
    denoise: Denoise, latents: Tensor, objective: FlowObjective, sampler: ODESampler, probe: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-likelihood of latents, by integrating from data to noise.

    Args:
        denoise: (x, t) -> the network's output, without guidance, since a guided field is not the flow of a density.
        latents: Scaled latents, float32[N, C, h, w].
        objective: The objective that the network was trained with.
        sampler: Sampler whose method, time grid and tolerances are used.
        probe: Random signs +1 and -1 with equal probability, of the shape of `latents`.

    Returns:
        log p(latents) in nats, float64[N], and the noise that the latents come from, float32[N, C, h, w].

    Raises:
        ValueError: An adaptive method finds no step that is short enough.
    """
    times = sampler.times(objective)
    last, grid = float(times[-1]), (times[-1] - times.flip(0)).to(latents)
    velocity = VelocityField(denoise, objective)

    def field(elapsed: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            v = velocity(last - elapsed, x)
            (product,) = torch.autograd.grad(v, x, probe)
        return -v.detach(), -(product * probe).flatten(1).sum(1)

    options = dict(grid_constructor=lambda *_: grid) if sampler.fixed_steps else dict(step_t=grid[-1:].double())
    solve = dict(atol=sampler.atol, rtol=sampler.rtol, method=sampler.method, options=options)
    try:
        with torch.no_grad():
            x, change = odeint()(field, (latents, latents.new_zeros(len(latents))), grid[[0, -1]], **solve)
    except AssertionError as error:
        if not str(error).startswith(GIVES_UP):
            raise
        raise ValueError(
            f"'{sampler.method}' finds no step short enough ({error}): the network's output is not finite or changes too fast; "
            "look at samples of this checkpoint, or use method='rk4'"
        ) from error
    return standard_normal(x[-1]) + change[-1].double(), x[-1]


def standard_normal(x: Tensor) -> Tensor:
    """log N(x; 0, 1) in nats: [N, ...] -> float64[N]."""
    flat = x.double().flatten(1)
    return -0.5 * (flat.square() + math.log(2 * math.pi)).sum(1)


def bits_per_dimension(log_p: Tensor, dims: int) -> Tensor:
    """Log-density in nats of `dims` values -> bits per value; lower is more likely, and negative values are possible."""
    return -log_p / (dims * math.log(2))
