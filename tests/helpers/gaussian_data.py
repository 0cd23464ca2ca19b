"""Gaussian data N(MEAN, STD²), whose exact denoisers are known."""

import torch

from usp_mm.functional import ddpm, flow

MEAN, STD = 0.3, 0.5


def no_noise(k):
    raise AssertionError('a deterministic sampler asked for noise')


def gaussian_flow(objective):
    """The exact prediction for data N(MEAN, STD²), in closed form."""

    def denoise(x, t):
        c = flow.Coefficients(*(value[:, None, None, None] for value in objective.coefficients(t.double())))
        centred, variance = x - c.alpha * MEAN, (c.alpha * STD).square() + c.sigma.square()
        if objective.prediction == 'velocity':
            return c.d_alpha * MEAN + (c.alpha * c.d_alpha * STD**2 + c.sigma * c.d_sigma) / variance * centred
        return centred / variance * (c.sigma if objective.prediction == 'noise' else -1)

    return denoise


def gaussian_diffusion(objective, kept):
    """Exact noise, and exact variance of the step to the kept step before."""
    alpha_bar = objective.alpha_bar
    short = ddpm.schedule(alpha_bar[kept])

    def denoise(x, t):
        row, a = kept.tolist().index(int(t[0])), alpha_bar[t][:, None, None, None]
        eps = (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)
        c = short.at(row)
        # what x_t leaves unknown of x0 adds to the variance given x0
        variance = c.log_posterior.exp() + c.mean_x0.square() * STD**2 * (1 - a) / (a * STD**2 + 1 - a)
        fraction = 2 * (variance.log() - c.log_posterior) / (c.log_beta - c.log_posterior) - 1
        return torch.cat([eps, fraction.expand_as(eps)], dim=1)

    return denoise
