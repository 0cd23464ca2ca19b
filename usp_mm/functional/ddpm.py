"""Diffusion in discrete steps: DDPM (arXiv 2006.11239) with the learned variances of improved DDPM (arXiv 2102.09672).

Shape legend: N samples, T steps of a schedule; states are [N, ...]. Equation numbers are DDPM's unless said.
"""

import math
from itertools import accumulate, repeat
from typing import NamedTuple

import torch
from torch import Tensor


def linear_alpha_bar(num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """ᾱ_t = Π(1 - β_s) of the linear schedule (section 4), float64[num_steps]."""
    return torch.cumprod(1 - torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64), dim=0)


def diffuse(x0: Tensor, alpha_bar: Tensor | float, noise: Tensor) -> Tensor:
    """Add noise to data: x_t = √ᾱ·x0 + √(1 - ᾱ)·ε (eq. 4); `alpha_bar` is one number, or one per sample, [N]."""
    if not isinstance(alpha_bar, Tensor):
        alpha_bar = torch.full((), alpha_bar, device=x0.device)
    alpha_bar = alpha_bar.reshape(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt().to(x0.dtype) * x0 + (1 - alpha_bar).sqrt().to(x0.dtype) * noise


def spaced_timesteps(num_steps: int, num_kept: int) -> Tensor:
    """Steps that a shortened chain keeps, evenly spaced and rounded, with the first and the last: int64[num_kept].

    Improved DDPM, section 4. The stride is added up in float64, as in the code of ADM and DiT: of an odd count, the
    step in the middle lies halfway between two integers, and the sum's rounding error decides which of them is kept.
    """
    stride = (num_steps - 1) / max(1, num_kept - 1)
    return torch.tensor([round(step) for step in accumulate(repeat(stride, num_kept - 1), initial=0.0)])


class Schedule(NamedTuple):
    """The quantities of a chain that follow from its ᾱ: tables float64[T], or their values at one step or one per sample.

    signal, noise: √ᾱ and √(1 - ᾱ).
    mean_x0, mean_xt: weights of x0 and x_t in the mean of q(x_{t-1} | x_t, x0) (eq. 7).
    log_beta: log β, upper end of the learned variances.
    log_posterior: log β̃, that of q(x_{t-1} | x_t, x0), the lower end; at t = 0, where β̃ = 0, that of t = 1.
    """

    signal: Tensor
    noise: Tensor
    mean_x0: Tensor
    mean_xt: Tensor
    log_beta: Tensor
    log_posterior: Tensor

    def at(self, step: int) -> 'Schedule':
        """Values at one step, 0-d; kept on the CPU, they combine with states on any device without a transfer."""
        return Schedule(*(table[step] for table in self))

    def per_sample(self, t: Tensor, like: Tensor) -> 'Schedule':
        """Values at steps int64[N], shaped and typed to multiply `like`, [N, ...]."""
        return Schedule(*(table[t].to(like.dtype).reshape(-1, *[1] * (like.ndim - 1)) for table in self))

    def to(self, device: torch.device) -> 'Schedule':
        """Copy all tables to `device`."""
        return Schedule(*(table.to(device) for table in self))


def schedule(alpha_bar: Tensor) -> Schedule:
    """Compute the schedule of a whole chain, or of the steps that a shortened one keeps, from its ᾱ, float64[T], T >= 2."""
    previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    beta = 1 - alpha_bar / previous
    variance = beta * (1 - previous) / (1 - alpha_bar)  # β̃, eq. 7
    return Schedule(
        signal=alpha_bar.sqrt(),
        noise=(1 - alpha_bar).sqrt(),
        mean_x0=beta * previous.sqrt() / (1 - alpha_bar),
        mean_xt=(1 - previous) * (1 - beta).sqrt() / (1 - alpha_bar),
        log_beta=beta.log(),
        log_posterior=torch.cat([variance[1:2], variance[1:]]).log(),
    )


def predict_x0(c: Schedule, x_t: Tensor, eps: Tensor) -> Tensor:
    """The x0 that follows from the predicted noise ε, by eq. 4; not clipped."""
    return (x_t - c.noise * eps) / c.signal


def posterior_mean(c: Schedule, x0: Tensor, x_t: Tensor) -> Tensor:
    """Mean of q(x_{t-1} | x_t, x0) (eq. 7)."""
    return c.mean_x0 * x0 + c.mean_xt * x_t


def learned_log_variance(c: Schedule, fraction: Tensor) -> Tensor:
    """log Σ between log β̃ (fraction = -1) and log β (fraction = 1), not clipped (improved DDPM, eq. 15)."""
    return c.log_posterior + (fraction + 1) / 2 * (c.log_beta - c.log_posterior)


def ancestral_step(c: Schedule, x_t: Tensor, eps: Tensor, fraction: Tensor | None, noise: Tensor | None) -> Tensor:
    """x_{t-1} ~ p(x_{t-1} | x_t) (algorithm 2).

    Args:
        c: Values of the schedule at step t.
        x_t, eps: State and predicted noise.
        fraction: Predicted variance, as in `learned_log_variance`; None uses β as the variance.
        noise: Standard normal noise; None returns the mean, as at the last step.
    """
    mean = posterior_mean(c, predict_x0(c, x_t, eps), x_t)
    if noise is None:
        return mean
    log_variance = c.log_beta if fraction is None else learned_log_variance(c, fraction)
    return mean + torch.exp(0.5 * log_variance) * noise


def gaussian_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, variance1) ‖ N(mean2, variance2)), elementwise, in nats."""
    difference = log_variance1 - log_variance2
    return 0.5 * (torch.exp(difference) - 1 - difference + (mean1 - mean2).square() * torch.exp(-log_variance2))


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log probability, in nats, of the bin of width 2/255 around x under N(mean, std); the end bins are open (eq. 13).

    In the paper x lies on a grid in [-1, 1]; latents beyond ±0.999 count as lying in the end bins. The normal distribution
    function is approximated by ½(1 + tanh(√(2/π)(z + 0.044715 z³))), as in the published losses of DiT.
    """
    z_above = (x - mean + 1 / 255) * torch.exp(-log_std)
    z_below = (x - mean - 1 / 255) * torch.exp(-log_std)
    above, below = _normal_cdf(z_above), _normal_cdf(z_below)
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def vlb_bits(c: Schedule, t: Tensor, x0: Tensor, x_t: Tensor, eps: Tensor, fraction: Tensor) -> Tensor:
    """The term of the variational bound at each sample's step: L_{t-1}, or L_0 at t = 0 (eq. 5).

    The mean is detached, so that only the variance is trained by it (improved DDPM, section 3.1). The term is not multiplied
    by the number of steps.

    Args:
        c: Values of the schedule per sample.
        t: Steps, int64[N].
        x0, x_t, eps, fraction: Data, state, predicted noise and predicted variance, float[N, ...].

    Returns:
        float[N], in bits per dimension.
    """
    mean = posterior_mean(c, predict_x0(c, x_t, eps.detach()), x_t)
    log_variance = learned_log_variance(c, fraction)
    kl = gaussian_kl(posterior_mean(c, x0, x_t), c.log_posterior, mean, log_variance)
    nll = -discretized_log_likelihood(x0, mean, 0.5 * log_variance)
    return torch.where(t == 0, nll.flatten(1).mean(1), kl.flatten(1).mean(1)) / math.log(2)
