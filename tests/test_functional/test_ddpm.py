import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from usp_mm.functional import ddpm


@pytest.fixture
def alpha_bar():
    return ddpm.linear_alpha_bar()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('t', [1, 2, 500, 999])
def test_posterior_equals_bayes_rule_by_quadrature(alpha_bar, t):
    """q(x_{t-1} | x_t, x0) ∝ q(x_t | x_{t-1})·q(x_{t-1} | x0), normalised on a grid."""
    x0, x_t, c = torch.tensor(0.7), torch.tensor(-0.4), ddpm.schedule(alpha_bar).at(t)
    beta = c.log_beta.exp()
    grid = torch.linspace(-6, 6, 400_001, dtype=torch.float64)
    step = Normal((1 - beta).sqrt() * grid, beta.sqrt()).log_prob(x_t)
    log_density = step + Normal(alpha_bar[t - 1].sqrt() * x0, (1 - alpha_bar[t - 1]).sqrt()).log_prob(grid)
    density = torch.softmax(log_density, dim=0)
    mean = (density * grid).sum()
    assert float(ddpm.posterior_mean(c, x0, x_t)) == pytest.approx(float(mean), abs=1e-8)
    assert float(c.log_posterior.exp()) == pytest.approx(float((density * (grid - mean).square()).sum()), rel=1e-6)


def test_shortened_chain_keeps_the_noise_levels_of_its_steps(alpha_bar):
    kept = ddpm.spaced_timesteps(1000, 7)
    assert kept.tolist() == [0, 166, 333, 500, 666, 832, 999]
    short = ddpm.schedule(alpha_bar[kept])
    torch.testing.assert_close((1 - short.log_beta.exp()).cumprod(0), alpha_bar[kept])
    assert short.log_posterior[0] == short.log_posterior[1]  # β̃ = 0 at t = 0 has no logarithm
    whole = ddpm.schedule(alpha_bar)
    torch.testing.assert_close(whole.log_beta.exp(), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))


def test_every_count_keeps_the_steps_of_the_official_rule():
    """Fractional strides from 0, added up one by one, each sum rounded to the nearest integer, halves to the even one."""
    differing = []
    for count in range(1, 1001):
        stride, position, expected = 999 / (count - 1) if count > 1 else 1.0, 0.0, []
        while len(expected) < count:
            expected.append(round(position))
            position += stride
        if ddpm.spaced_timesteps(1000, count).tolist() != expected:
            differing.append(count)
    assert not differing
    # 999 / 2 rounds to the even 500; some sums fall short of it
    assert {int(ddpm.spaced_timesteps(1000, count)[count // 2]) for count in range(3, 1000, 2)} == {499, 500}


def test_predicted_x0_inverts_diffusion(alpha_bar):
    x0, eps = draw(3, 2, 4), draw(3, 2, 4, seed=1)
    t = torch.tensor([0, 421, 999])
    c = ddpm.schedule(alpha_bar).per_sample(t, x0)
    assert c.signal.shape == (3, 1, 1) and c.signal.dtype == torch.float64
    torch.testing.assert_close(ddpm.predict_x0(c, ddpm.diffuse(x0, alpha_bar[t], eps), eps), x0)


def test_learned_variance_runs_from_posterior_to_beta(alpha_bar):
    c = ddpm.schedule(alpha_bar).at(300)
    low, middle, high = (ddpm.learned_log_variance(c, torch.tensor(v, dtype=torch.float64)) for v in (-1, 0, 1))
    assert low == c.log_posterior and high == pytest.approx(float(c.log_beta))
    assert float(middle) == pytest.approx(float(low + high) / 2)


def test_kl_equals_that_of_torch():
    m1, v1, m2, v2 = (draw(50, seed=k) for k in range(4))
    expected = kl_divergence(Normal(m1, (0.5 * v1).exp()), Normal(m2, (0.5 * v2).exp()))
    torch.testing.assert_close(ddpm.gaussian_kl(m1, v1, m2, v2), expected)


def test_discretized_likelihood_is_a_distribution_over_256_bins():
    grid = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mean, std = torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    mass = ddpm.discretized_log_likelihood(grid, mean, std.log()).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    normal = Normal(mean, std)
    exact = normal.cdf(grid[1:-1] + 1 / 255) - normal.cdf(grid[1:-1] - 1 / 255)
    torch.testing.assert_close(mass[1:-1], exact, atol=5e-5, rtol=0)
    assert float(mass[-1]) == pytest.approx(float(1 - normal.cdf(grid[-1] - 1 / 255)), abs=5e-4)  # open end


def test_bound_is_zero_for_the_true_posterior_and_trains_the_variance_only(alpha_bar):
    x0, eps = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    t = torch.tensor([1, 700])
    c, x_t = ddpm.schedule(alpha_bar).per_sample(t, x0), ddpm.diffuse(x0, alpha_bar[t], eps)
    at_posterior = torch.full_like(x0, -1)
    torch.testing.assert_close(
        ddpm.vlb_bits(c, t, x0, x_t, eps, at_posterior), torch.zeros(2, dtype=x0.dtype), atol=1e-9, rtol=0
    )

    guess, fraction = (draw(2, 3, 4, seed=k).requires_grad_() for k in (2, 3))
    bits = ddpm.vlb_bits(c, t, x0, x_t, guess, fraction)
    bits.sum().backward()
    assert guess.grad is None and fraction.grad.abs().min() > 0
    nats = kl_divergence(
        Normal(ddpm.posterior_mean(c, x0, x_t), (0.5 * c.log_posterior).exp()),
        Normal(
            ddpm.posterior_mean(c, ddpm.predict_x0(c, x_t, guess), x_t), (0.5 * ddpm.learned_log_variance(c, fraction)).exp()
        ),
    )
    torch.testing.assert_close(bits, nats.flatten(1).mean(1) / math.log(2))


def test_bound_at_the_first_step_is_the_likelihood(alpha_bar):
    x0, eps, fraction = draw(1, 3, 4), draw(1, 3, 4, seed=1), draw(1, 3, 4, seed=2)
    t = torch.tensor([0])
    c, x_t = ddpm.schedule(alpha_bar).per_sample(t, x0), ddpm.diffuse(x0, alpha_bar[t], eps)
    std = 0.5 * ddpm.learned_log_variance(c, fraction)
    nll = -ddpm.discretized_log_likelihood(x0, ddpm.predict_x0(c, x_t, eps), std)  # at t = 0 the mean is the x0 predicted
    torch.testing.assert_close(ddpm.vlb_bits(c, t, x0, x_t, eps, fraction), nll.mean()[None] / math.log(2))


def test_step_adds_the_learned_or_the_largest_noise(alpha_bar):
    c, x, eps, noise = ddpm.schedule(alpha_bar).at(400), draw(5), draw(5, seed=1), torch.ones(5, dtype=torch.float64)
    mean = ddpm.ancestral_step(c, x, eps, None, None)
    torch.testing.assert_close(mean, ddpm.posterior_mean(c, ddpm.predict_x0(c, x, eps), x))
    for fraction, variance in ((None, c.log_beta), (-noise, c.log_posterior), (noise, c.log_beta)):
        added = ddpm.ancestral_step(c, x, eps, fraction, noise) - mean
        torch.testing.assert_close(added, (0.5 * variance).exp().expand(5))
