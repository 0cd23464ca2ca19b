import math

import pytest
import torch

from usp_mm.functional import flow, sde

TIMES = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
ALL_PATHS = pytest.mark.parametrize('path', sorted(flow.PATHS))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@ALL_PATHS
def test_derivatives_equal_finite_differences(path):
    h, f = 1e-6, flow.PATHS[path]
    c, ahead, behind = f(TIMES), f(TIMES + h), f(TIMES - h)
    torch.testing.assert_close(c.d_alpha, (ahead.alpha - behind.alpha) / (2 * h), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(c.d_sigma, (ahead.sigma - behind.sigma) / (2 * h), rtol=1e-6, atol=1e-8)


@ALL_PATHS
def test_paths_lead_from_noise_to_data(path):
    start, end = (flow.PATHS[path](torch.tensor(t, dtype=torch.float64)) for t in (0.0, 1.0))
    at_start = {'linear': 0, 'gvp': 0, 'vp': math.exp(-0.25 * 19.9 - 0.05)}[path]
    assert [float(v) for v in (*start[:2], *end[:2])] == pytest.approx([at_start, math.sqrt(1 - at_start**2), 1, 0], abs=1e-12)
    c = flow.PATHS[path](TIMES)
    if path != 'linear':
        torch.testing.assert_close(c.alpha.square() + c.sigma.square(), torch.ones_like(TIMES))


@ALL_PATHS
def test_state_and_velocity_are_value_and_slope_of_one_line(path):
    x1, x0, t, h = draw(3, 2, 4), draw(3, 2, 4, seed=1), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 1e-6
    x_t, u_t = flow.interpolate(flow.PATHS[path](t), x1, x0)
    ahead, behind = (flow.interpolate(flow.PATHS[path](t + d), x1, x0)[0] for d in (h, -h))
    torch.testing.assert_close(u_t, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)
    assert flow.interpolate(flow.PATHS[path](t), x1.float(), x0.float())[0].dtype == torch.float32
    torch.testing.assert_close(x_t[1], flow.PATHS[path](t).alpha[1] * x1[1] + flow.PATHS[path](t).sigma[1] * x0[1])


def exact(c, x, mean, var):
    """Velocity, noise and score at x for data N(mean, var), in closed form."""
    variance = c.alpha.square() * var + c.sigma.square()
    score = -(x - c.alpha * mean) / variance
    velocity = c.d_alpha * mean + (c.alpha * c.d_alpha * var + c.sigma * c.d_sigma) / variance * (x - c.alpha * mean)
    return dict(velocity=velocity, noise=-c.sigma * score, score=score)


@ALL_PATHS
@pytest.mark.parametrize('prediction', flow.PREDICTIONS)
def test_any_prediction_gives_the_same_velocity_and_score(path, prediction):
    c, x = flow.PATHS[path](TIMES), draw(50)
    truth = exact(c, x, mean=0.3, var=0.25)
    torch.testing.assert_close(flow.velocity(c, prediction)(x, truth[prediction]), truth['velocity'], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(flow.score(c, prediction)(x, truth[prediction]), truth['score'], rtol=1e-7, atol=1e-9)


@ALL_PATHS
def test_weights_turn_a_noise_loss_into_a_velocity_loss(path):
    c, x = flow.PATHS[path](TIMES), draw(50)
    a, b = draw(50, seed=1), draw(50, seed=2)
    to_velocity = flow.velocity(c, 'noise')
    expected = (to_velocity(x, a) - to_velocity(x, b)).square()
    torch.testing.assert_close(flow.loss_weight(c, 'velocity') * (a - b).square(), expected)
    torch.testing.assert_close(flow.loss_weight(c, 'likelihood') * flow.drift_variance(c), flow.loss_weight(c, 'velocity'))
    assert flow.loss_weight(c, None).unique().tolist() == [1.0]


def test_intervals():
    assert flow.train_interval('linear', 'velocity') == flow.sample_interval('gvp', 'velocity') == (0.0, 1.0)
    assert flow.train_interval('gvp', 'noise') == flow.sample_interval('linear', 'score') == (1e-3, 1 - 1e-3)
    assert flow.train_interval('vp', 'velocity') == (0.0, 1 - 1e-5)
    assert flow.sample_interval('vp', 'noise') == (0.0, 1 - 1e-3)


def test_shift_spends_more_steps_near_noise():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    shifted = flow.shift_times(t, 0.3)
    assert float(shifted[5]) == pytest.approx(0.15 / 0.65)
    assert shifted[0] == 0 and float(shifted[-1]) == pytest.approx(1, abs=1e-15)
    assert (shifted.diff() > 0).all() and (shifted[1:-1] < t[1:-1]).all()
    torch.testing.assert_close(flow.shift_times(shifted, 1 / 0.3), t)
    torch.testing.assert_close(1 - flow.shift_times(1 - t, 1 / 0.3), shifted)  # time reversed: the reciprocal
    assert torch.equal(flow.shift_times(t, 1.0), t)


def test_logit_normal_draws():
    u = (torch.arange(10_000) + 0.5) / 10_000
    logits = torch.logit(flow.logit_normal(u, mean=-0.4, std=0.7).double())
    assert float(logits.mean()) == pytest.approx(-0.4, abs=1e-3) and float(logits.std()) == pytest.approx(0.7, abs=1e-3)
    assert float(flow.logit_normal(torch.zeros(1))) == 0.0


def test_cosine_distance():
    v = draw(2, 4, 3, 3)
    torch.testing.assert_close(flow.cosine_distance(v, 2 * v), torch.zeros(2, dtype=v.dtype), atol=1e-12, rtol=0)
    torch.testing.assert_close(flow.cosine_distance(v, -v), torch.full((2,), 2.0, dtype=v.dtype))


def test_diffusion_forms():
    t = torch.tensor([0.25], dtype=torch.float64)
    found = {name: float(form(t, flow.linear(t))) for name, form in sde.DIFFUSIONS.items()}
    decreasing = (math.cos(math.pi / 4) + 1) ** 2 / 4
    expected = {'sigma': 0.75, 'linear': 0.75, 'decreasing': decreasing, 'constant': 1, 'sbdm': 0.75**2 / 0.25 + 0.75}
    assert found == pytest.approx({**expected, 'increasing-decreasing': 0.5})


@ALL_PATHS
@pytest.mark.parametrize('form', sorted(sde.DIFFUSIONS))
def test_any_diffusion_keeps_the_mean_and_variance_of_the_path(path, form):
    """Fokker–Planck for data N(m, s²): mean' = E[drift], variance' = 2·Cov(x, drift) + 2D, for the linear drift a + b·x."""
    m, var = 0.3, 0.25
    c = flow.PATHS[path](TIMES)
    diffusion = sde.DIFFUSIONS[form](TIMES, c)
    drift = sde.sde_drift(c, 'score', diffusion)
    a = drift(torch.zeros_like(TIMES), exact(c, torch.zeros_like(TIMES), m, var)['score'])
    b = drift(torch.ones_like(TIMES), exact(c, torch.ones_like(TIMES), m, var)['score']) - a
    torch.testing.assert_close(a + b * c.alpha * m, c.d_alpha * m)
    variance = c.alpha.square() * var + c.sigma.square()
    d_variance = 2 * c.alpha * c.d_alpha * var + 2 * c.sigma * c.d_sigma
    torch.testing.assert_close(2 * b * variance + 2 * diffusion, d_variance)


@pytest.mark.parametrize('prediction', flow.PREDICTIONS)
def test_last_steps(prediction):
    t, x, h = torch.tensor(0.96, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64), 0.04
    c = flow.linear(t)
    truth = exact(c, x, mean=0.3, var=0.25)
    diffusion = sde.DIFFUSIONS['sigma'](t, c)
    found = {k: float(sde.last_step(k, c, prediction, diffusion, h)(x, truth[prediction])) for k in sde.LAST_STEPS}
    velocity, score = float(truth['velocity']), float(truth['score'])
    tweedie = (0.8 + 0.04**2 * score) / 0.96
    assert found == pytest.approx(dict(mean=0.8 + h * (velocity + 0.04 * score), euler=0.8 + h * velocity, tweedie=tweedie))
