"""Likelihoods of Gaussian data under their exact velocity, which closed forms tell."""

import math

import pytest
import torch
from helpers.gaussian_data import MEAN, STD, gaussian_flow

from usp_mm.functional import flow
from usp_mm.models.likelihood import bits_per_dimension, log_likelihood
from usp_mm.models.objectives import FlowObjective
from usp_mm.models.samplers import ODESampler


def exact(x):
    """log N(x; MEAN, STD²) in nats."""
    return (-0.5 * ((x - MEAN) / STD).square() - math.log(STD) - 0.5 * math.log(2 * math.pi)).double().flatten(1).sum(1)


def signs(shape):
    return torch.where(torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0)


@pytest.mark.parametrize('method', ['dopri5', 'heun2', 'rk4', 'bosh3'])
@pytest.mark.parametrize('prediction', flow.PREDICTIONS)
def test_the_density_of_gaussian_data_is_found(prediction, method):
    objective, x = FlowObjective('gvp', prediction), torch.linspace(-1, 2, 24).reshape(4, 6, 1, 1)
    sampler = ODESampler(method, 200, atol=1e-7, rtol=1e-6)
    found, noise = log_likelihood(gaussian_flow(objective), x, objective, sampler, signs(x.shape))
    tolerance = 1e-3 if prediction == 'velocity' else 2e-2  # of noise and score the interval leaves out 1e-3 at either end
    torch.testing.assert_close(found, exact(x), rtol=0, atol=tolerance)
    torch.testing.assert_close(noise, (x - MEAN) / STD, rtol=0, atol=1e-2)


def test_probes_estimate_the_trace_of_a_full_jacobian():
    """A linear velocity x·A: log p changes by the trace of A, which the mean over signs finds."""
    a = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) / 4
    x, objective = torch.randn(1, 4, 1, 1, generator=torch.Generator().manual_seed(2)), FlowObjective()

    def denoise(x, t):
        return torch.einsum('ncij,cd->ndij', x, a)

    sampler = ODESampler('rk4', 20)
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)  # all signs there are: their mean is exact
    found = [log_likelihood(denoise, x, objective, sampler, probe.reshape(1, 4, 1, 1)) for probe in every]
    noise = torch.linalg.solve(torch.matrix_exp(a).T, x.flatten())
    expected = -0.5 * (noise.square().sum() + 4 * math.log(2 * math.pi)) - a.trace()
    assert float(torch.stack([log_p for log_p, _ in found]).mean()) == pytest.approx(float(expected), abs=1e-4)
    torch.testing.assert_close(found[0][1].flatten(), noise, rtol=0, atol=1e-4)


def test_a_diverged_network_is_one_line():
    x = torch.zeros(2, 4, 1, 1)
    with pytest.raises(ValueError, match=r"'dopri5' finds no step short enough .*use method='rk4'"):
        log_likelihood(lambda x, t: x * torch.nan, x, FlowObjective(), ODESampler('dopri5'), signs(x.shape))


def test_bits_are_of_one_number():
    assert float(bits_per_dimension(torch.tensor(-8 * math.log(2)), 4)) == pytest.approx(2.0)
