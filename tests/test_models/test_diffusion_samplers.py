import pytest
import torch
from diffusers import DDPMScheduler
from helpers import golden
from helpers.gaussian_data import MEAN, STD, gaussian_diffusion, gaussian_flow, no_noise
from test_golden_dit import build
from test_objectives import tensors

from usp_mm.functional import ddpm, flow, sde
from usp_mm.models.guidance import Guidance
from usp_mm.models.objectives import DDPMObjective, FlowObjective
from usp_mm.models.samplers import AncestralSampler, DDIMSampler, ODESampler, SDESampler
from usp_mm.models.samplers.ode import METHODS, VelocityField
from usp_mm.registry import MODELS

SIT_SAMPLES = [name for name in golden.load('sit_sample') if name.startswith('ode_') or name.count('_') == 4]


def assert_close(actual, expected):
    """To 1e-4 of the largest value: chains amplify rounding."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


# ------------------------------------------------------------------ the official chains


@pytest.mark.parametrize(('name', 'kind'), [('dit_sample_ddpm10', 'AncestralSampler'), ('dit_sample_ddim8', 'DDIMSampler')])
def test_diffusion_chains_are_the_official_ones(name, kind):
    numbers, asked, called = tensors(name), [], []
    guided = Guidance(float(numbers['cfg_scale']), channels=3).denoise(build('DiT'), numbers['y'], DDPMObjective())

    def denoise(x, t):
        called.append(t.tolist())
        return guided(x, t)

    def step_noise(k):
        asked.append(k)
        return numbers['noise'][k, :2]  # of the conditional half; the other half's state is never read

    sampler, objective = MODELS.build(dict(type=kind, num_steps=len(numbers['timesteps']))), DDPMObjective()
    sampler.check(objective)
    sample = sampler.sample(denoise, numbers['z'], objective, step_noise)
    assert_close(sample, numbers['sample'])
    assert called == [[t, t] for t in reversed(numbers['timesteps'].tolist())]
    assert asked == (list(range(9)) if kind == 'AncestralSampler' else [])


@pytest.mark.parametrize('name', SIT_SAMPLES)
def test_flow_chains_are_the_official_ones(name):
    numbers, (kind, prediction, method, *rest) = tensors('sit_sample'), name.split('_')
    if kind == 'ode':
        sampler = dict(type='ODESampler', method=method, num_steps=int(rest[0]))
    else:
        last_step = None if rest[1] == 'None' else rest[1].lower()
        sampler = dict(type='SDESampler', method=method.lower(), diffusion=rest[0].lower(), last_step=last_step, num_steps=10)
    sampler, objective, model = MODELS.build(sampler), FlowObjective(prediction=prediction), build('SiT')
    sampler.check(objective)
    sample = sampler.sample(lambda x, t: model(x, t, numbers['y']), numbers['z'], objective, lambda k: numbers['sde_noise'][k])
    assert_close(sample, numbers[name])


def test_ancestral_chain_is_that_of_diffusers():
    """Its scheduler draws the noise itself, from a generator that is replayed here."""
    scheduler = DDPMScheduler(variance_type='learned_range', timestep_spacing='linspace', clip_sample=False)
    scheduler.set_timesteps(25)
    z, theirs = torch.randn(2, 4, 4, 4), torch.Generator().manual_seed(7)
    x, ours = z, torch.Generator().manual_seed(7)

    def denoise(x, t):
        return torch.cat([0.8 * x + 0.1 * torch.sin(3 * x), torch.cos(x)], dim=1) / (1 + t[:, None, None, None] / 1000)

    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, t.expand(2)), t, x, generator=theirs).prev_sample
    step_noise = lambda k: torch.randn(z.shape, generator=ours)  # noqa: E731
    assert_close(AncestralSampler(25).sample(denoise, z, DDPMObjective(), step_noise), x)


# ------------------------------------------------------------------ exact denoisers of Gaussian data


def moments(sampler, objective, denoise):
    """Mean and standard deviation of the samples, without drawing any: the chain is linear, so that its answers to unit
    noise at the start and in each step add up."""
    num = sampler.num_steps
    z = torch.zeros(num + 2, 1, 1, 1, dtype=torch.float64)
    z[1] = 1

    def step_noise(k):
        noise = torch.zeros_like(z)
        noise[k + 2] = 1
        return noise

    sampler.check(objective)
    x = sampler.sample(denoise, z, objective, step_noise).flatten().double()
    return float(x[0]), float((x[1:] - x[0]).square().sum().sqrt())


@pytest.mark.parametrize('prediction', flow.PREDICTIONS)
@pytest.mark.parametrize('path', sorted(flow.PATHS))
@pytest.mark.parametrize('method', list(METHODS))
def test_exact_velocity_moves_each_point_to_its_quantile(method, path, prediction):
    objective, z = FlowObjective(path, prediction), torch.linspace(-2, 2, 9).reshape(9, 1, 1, 1)
    sampler = ODESampler(method, num_steps=400)
    sampler.check(objective)
    x = sampler.sample(gaussian_flow(objective), z, objective, no_noise)
    tolerance = 2e-2 if method == 'euler' else 3e-3  # the interval leaves out up to 1e-3 at either end
    torch.testing.assert_close(x, MEAN + STD * z, rtol=0, atol=tolerance)


@pytest.mark.parametrize('method', ['euler', 'heun'])
@pytest.mark.parametrize('diffusion', sorted(sde.DIFFUSIONS))
def test_every_diffusion_ends_in_the_data_distribution(diffusion, method):
    objective = FlowObjective('gvp', 'velocity' if diffusion != 'sbdm' else 'noise')
    sampler = SDESampler(method, 1000, diffusion, 'mean', last_step_size=0.002)
    mean, std = moments(sampler, objective, gaussian_flow(objective))
    assert mean == pytest.approx(MEAN, abs=0.01) and std == pytest.approx(STD, abs=0.01)


@pytest.mark.parametrize('num_steps', [4, 30])
def test_ancestral_chain_of_any_length_is_exact_for_exact_variances(num_steps):
    objective = DDPMObjective()
    kept = ddpm.spaced_timesteps(1000, num_steps)
    last = objective.alpha_bar[-1]
    mean, std = moments(AncestralSampler(num_steps), objective, gaussian_diffusion(objective, kept))
    # what remains at t = 999 of the data is missing from the start noise; the last step adds no noise
    assert mean == pytest.approx(MEAN, abs=2 * MEAN * float(last.sqrt()))
    assert std == pytest.approx(STD, abs=1e-3)


def test_ddim_moves_each_point_to_its_quantile():
    objective, z = DDPMObjective(), torch.linspace(-2, 2, 9).reshape(9, 1, 1, 1)
    sampler = DDIMSampler(500)
    x = sampler.sample(gaussian_diffusion(objective, torch.arange(0, 1000, 2)), z, objective, no_noise)
    torch.testing.assert_close(x, MEAN + STD * z, rtol=0, atol=1e-2)


@pytest.mark.parametrize('prediction', ['velocity', 'noise'])
@pytest.mark.parametrize('method', [name for name, tableau in METHODS.items() if tableau])
def test_steps_along_the_grid_are_those_of_torchdiffeq(method, prediction):
    """Euler's and the midpoint's to the bit; the others round their sums in another order."""
    from torchdiffeq import odeint

    objective, z = FlowObjective(prediction=prediction), torch.randn(3, 2, 2, 2)
    denoise = lambda x, t: (3 * x).sin() * (1 + t.view(-1, 1, 1, 1))  # noqa: E731
    sampler = ODESampler(method, 7, timestep_shift=0.5)
    grid, field = sampler.times(objective).to(z), VelocityField(denoise, objective)
    expected = odeint(field, z, grid, method=method)[-1]
    found = sampler.sample(denoise, z, objective, no_noise)
    assert torch.equal(found, expected) or method not in ('euler', 'midpoint')
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5 * float(expected.abs().max()))


def test_euler_visits_the_shifted_grid():
    objective, seen = FlowObjective(), []
    sampler = ODESampler('euler', 6, timestep_shift=0.3)
    sampler.sample(lambda x, t: seen.append(t) or torch.zeros_like(x), torch.zeros(2, 1, 1, 1), objective, no_noise)
    grid = [0.3 * t / (1 - 0.7 * t) for t in (0, 0.2, 0.4, 0.6, 0.8)]
    assert torch.stack(seen).tolist() == [pytest.approx([t, t], abs=1e-7) for t in grid]


# ------------------------------------------------------------------ what samplers ask for


@pytest.mark.parametrize(
    ('sampler', 'calls', 'noises', 'num_steps'),
    [
        (AncestralSampler(10), 10, 9, 10),
        (DDIMSampler(10), 10, 0, 10),
        (ODESampler('euler', 10), 9, 0, 9),
        (ODESampler('heun2', 10), 18, 0, 9),
        (ODESampler('midpoint', 10), 18, 0, 9),
        (ODESampler('heun3', 10), 27, 0, 9),
        (ODESampler('rk4', 10), 36, 0, 9),
        (SDESampler('euler', 10), 10, 9, 10),
        (SDESampler('euler', 10, last_step=None), 9, 9, 9),
        (SDESampler('heun', 10), 19, 9, 10),
    ],
)
def test_calls_steps_and_noise(sampler, calls, noises, num_steps):
    diffusion = sampler.objective_type is DDPMObjective
    objective, count, asked, steps = sampler.objective_type(), [], [], []

    def denoise(x, t):
        assert x.shape == (2, 4, 2, 2) and t.shape == (2,) and not torch.is_grad_enabled()
        assert t.dtype == (torch.int64 if diffusion else torch.float32)
        count.append(1)
        return torch.cat([x, x], dim=1) if diffusion else x

    def step_noise(k):
        asked.append(k)
        return torch.ones(2, 4, 2, 2)

    def on_step(k, x):
        steps.append((k, x.clone()))

    z = torch.randn(2, 4, 2, 2)
    x = sampler.sample(denoise, z, objective, step_noise, on_step)
    assert len(count) == calls and asked == list(range(noises))
    assert [k for k, _ in steps] == list(range(num_steps)) and sampler.num_updates == num_steps
    assert torch.equal(steps[-1][1], x) and len({float(x.sum()) for _, x in steps}) == len(steps)
    assert torch.equal(sampler.sample(denoise, z, objective, step_noise), x) and x.dtype == torch.float32


def test_adaptive_steps_do_not_depend_on_who_watches():
    objective, seen = FlowObjective(prediction='noise'), []
    sampler, z = ODESampler('dopri5', num_steps=5), torch.randn(3, 1, 2, 2)
    alone = sampler.sample(gaussian_flow(objective), z, objective, no_noise)
    watched = sampler.sample(gaussian_flow(objective), z, objective, no_noise, lambda k, x: seen.append((k, x)))
    assert torch.equal(alone, watched) and [k for k, _ in seen] == [0, 1, 2, 3] and torch.equal(seen[-1][1], alone)


@pytest.mark.parametrize('path', sorted(flow.PATHS))
def test_adaptive_steps_stay_within_the_interval(path):
    objective, times = FlowObjective(path, 'noise'), []
    exact = gaussian_flow(objective)
    sampler = ODESampler('dopri5')
    sampler.sample(lambda x, t: times.append(float(t[0])) or exact(x, t), torch.randn(3, 1, 2, 2), objective, no_noise)
    first, last = flow.sample_interval(path, 'noise')
    assert min(times) == pytest.approx(first) and max(times) == pytest.approx(last) and max(times) <= last + 1e-7


@pytest.mark.parametrize(
    'sampler', [AncestralSampler(5), DDIMSampler(5), ODESampler('heun2', 5), SDESampler('heun', 5), ODESampler('dopri5')]
)
def test_a_sample_does_not_depend_on_its_batch_where_the_sampler_says_so(sampler):
    objective, z, noise = sampler.objective_type(), torch.randn(3, 4, 2, 2), torch.randn(5, 3, 4, 2, 2)

    def denoise(x, t):
        out = x.sin()
        return torch.cat([out, out], dim=1) if objective.integer_times else out

    batch = sampler.sample(denoise, z, objective, lambda k: noise[k])
    single = sampler.sample(denoise, z[1:2], objective, lambda k: noise[k, 1:2])
    assert torch.equal(batch[1:2], single) == sampler.batch_invariant


WAITLESS = [AncestralSampler(5), DDIMSampler(5), SDESampler('euler', 5), SDESampler('heun', 5)]


@pytest.mark.parametrize('sampler', [*WAITLESS, *(ODESampler(name, 5) for name, tableau in METHODS.items() if tableau)])
def test_no_step_waits_for_the_device(sampler):
    """States without values (device 'meta') raise when anything reads them."""
    objective, z = sampler.objective_type(), torch.empty(3, 4, 2, 2, device='meta')
    x = sampler.sample(lambda x, t: torch.cat([x, x], 1) if objective.integer_times else x, z, objective, lambda k: z)
    assert x.device == z.device and x.shape == z.shape and x.dtype == torch.float32
