"""Flows from noise to data along Gaussian paths, as in SiT (arXiv 2401.08740): x_t = α_t·x1 + σ_t·x0.

At t = 0 the state is noise, x0; at t = 1 it is data, x1. Coefficients are float64, because nearly equal numbers are subtracted
near the ends; states keep their dtype.

A network predicts the velocity, the noise x0 or the score. Each of these gives the others as a linear combination of the
state and the network's output, with two coefficients (`Mix`) that depend only on t.

Shape legend: N samples; states are [N, ...].
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PREDICTIONS = ('velocity', 'noise', 'score')
WEIGHTINGS = ('velocity', 'likelihood')

#: Distance that times keep, in training and in sampling, from the ends where a path's coefficients diverge.
_TRAIN_EPS, _SAMPLE_EPS = {'vp': 1e-5}, 1e-3


class Coefficients(NamedTuple):
    """α, σ and their derivatives at times of any shape, float64."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


def linear(t: Tensor) -> Coefficients:
    """Straight lines: α = t, σ = 1 - t."""
    return Coefficients(t, 1 - t, torch.ones_like(t), -torch.ones_like(t))


def gvp(t: Tensor) -> Coefficients:
    """Generalised variance preserving: α = sin(πt/2), σ = cos(πt/2)."""
    angle = math.pi / 2 * t
    sin, cos = angle.sin(), angle.cos()
    return Coefficients(sin, cos, math.pi / 2 * cos, -math.pi / 2 * sin)


#: β of `vp` at its two ends.
VP_BETA_MIN, VP_BETA_MAX = 0.1, 20.0


def vp(t: Tensor) -> Coefficients:
    """Variance preserving: DDPM's schedule in continuous time (arXiv 2011.13456, appendix C), with data at t = 1."""
    beta_min, beta_max = VP_BETA_MIN, VP_BETA_MAX
    log_alpha = -0.25 * (1 - t).square() * (beta_max - beta_min) - 0.5 * (1 - t) * beta_min
    d_log_alpha = 0.5 * (1 - t) * (beta_max - beta_min) + 0.5 * beta_min
    alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
    return Coefficients(alpha, sigma, alpha * d_log_alpha, -alpha.square() * d_log_alpha / sigma)


PATHS: dict[str, Callable[[Tensor], Coefficients]] = {'linear': linear, 'gvp': gvp, 'vp': vp}


def train_interval(path: str, prediction: str) -> tuple[float, float]:
    """First and last time of the interval from which training draws its times."""
    return _interval(path, prediction, _TRAIN_EPS.get(path, _SAMPLE_EPS))


def sample_interval(path: str, prediction: str) -> tuple[float, float]:
    """First and last time of sampling; ends at which the velocity can't be computed are left out."""
    return _interval(path, prediction, _SAMPLE_EPS)


def _interval(path: str, prediction: str, eps: float) -> tuple[float, float]:
    if path == 'vp':  # σ̇ diverges at data, whatever is predicted; α > 0 at noise
        return 0.0, 1 - eps
    return (0.0, 1.0) if prediction == 'velocity' else (eps, 1 - eps)


def interpolate(c: Coefficients, x1: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Compute x_t = α·x1 + σ·x0 and its velocity u_t = α̇·x1 + σ̇·x0, for one time per sample: coefficients [N]."""
    alpha, sigma, d_alpha, d_sigma = (per_sample(value, x1) for value in c)
    return alpha * x1 + sigma * x0, d_alpha * x1 + d_sigma * x0


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """Give values per sample, [N], the dtype and number of dimensions of `like`, [N, ...], so that they multiply it."""
    return value.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def drift_variance(c: Coefficients) -> Tensor:
    """w = (α̇/α)σ² - σσ̇: the path's velocity is (α̇/α)·x + w·score."""
    return c.d_alpha / c.alpha * c.sigma.square() - c.sigma * c.d_sigma


def loss_weight(c: Coefficients, weighting: str | None) -> Tensor:
    """Weight of the squared error of the noise: 1 (None), (w/σ)² ('velocity', as in a velocity loss) or w/σ² ('likelihood')."""
    if weighting is None:
        return torch.ones_like(c.alpha)
    w = drift_variance(c)
    return (w / c.sigma).square() if weighting == 'velocity' else w / c.sigma.square()


class Mix(NamedTuple):
    """The two coefficients of the linear combination x·(state) + out·(network output)."""

    x: Tensor
    out: Tensor

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Combine a state and a network output; the coefficients must be 0-d."""
        return self.x * x + self.out * out


def velocity(c: Coefficients, prediction: str) -> Mix:
    """The velocity of the probability flow, (α̇/α)·x + w·score, from what the network predicts."""
    if prediction == 'velocity':
        return Mix(torch.zeros_like(c.alpha), torch.ones_like(c.alpha))
    w = drift_variance(c)
    return Mix(c.d_alpha / c.alpha, w if prediction == 'score' else -w / c.sigma)


def score(c: Coefficients, prediction: str) -> Mix:
    """The score ∇log p_t from what the network predicts: -ε/σ, or (r·v - x)/(σ² - rσ̇σ) with r = α/α̇."""
    zero, one = torch.zeros_like(c.alpha), torch.ones_like(c.alpha)
    if prediction == 'velocity':
        r = c.alpha / c.d_alpha
        scale = c.sigma.square() - r * c.d_sigma * c.sigma
        return Mix(-one / scale, r / scale)
    return Mix(zero, one if prediction == 'score' else -one / c.sigma)


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Map times in [0, 1] to t' = s·t / (1 + (s - 1)·t), also in [0, 1]; s < 1 puts more steps near noise (t = 0).

    Stable Diffusion 3 (arXiv 2403.03206) has noise at t = 1, so that its shift is the reciprocal of this one.
    """
    return shift * t / (1 + (shift - 1) * t)


def logit_normal(u: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Turn uniform draws in [0, 1) into draws whose logit is normal (arXiv 2403.03206, section 3.1), of the same dtype."""
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


def cosine_distance(v: Tensor, u: Tensor) -> Tensor:
    """Mean over space of 1 - cos(v, u) along channels (LightningDiT, arXiv 2501.01423): [N, C, h, w] twice -> [N]."""
    return (1 - torch.cosine_similarity(v, u, dim=1)).flatten(1).mean(1)
