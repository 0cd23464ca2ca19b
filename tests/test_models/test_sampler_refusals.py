"""Settings, pairs and networks that no sampler can sample."""

import copy
import itertools
import math

import pytest
import torch
from helpers.gaussian_data import gaussian_flow, no_noise

from usp_mm.functional import flow, sde
from usp_mm.models.objectives import DDPMObjective, FlowObjective
from usp_mm.models.samplers import AncestralSampler, DDIMSampler, ODESampler, SDESampler


def test_every_flow_combination_is_sampled_or_refused_with_its_reason():
    z, refused, total = torch.linspace(-2, 2, 4).reshape(4, 1, 1, 1), set(), 0
    for path, prediction in itertools.product(flow.PATHS, flow.PREDICTIONS):
        objective = FlowObjective(path, prediction)
        denoise = gaussian_flow(objective)
        for settings in itertools.product(('euler', 'heun'), (30,), sde.DIFFUSIONS, (*sde.LAST_STEPS, None)):
            sampler, total = SDESampler(*settings), total + 1
            try:
                sampler.check(objective)
            except ValueError as error:
                refused.add((path, prediction, *settings, str(error).split(' ')[0]))
                continue
            assert sampler.sample(denoise, z, objective, lambda k: z.flip(0)).isfinite().all(), (path, prediction, settings)
    sbdm = {
        (path, 'velocity', method, 30, 'sbdm', last, "diffusion='sbdm'")
        for path, method, last in itertools.product(('linear', 'gvp'), ('euler', 'heun'), (*sde.LAST_STEPS, None))
    }
    heun = {
        (path, 'velocity', 'heun', 30, diffusion, None, "method='heun'")
        for path, diffusion in itertools.product(('linear', 'gvp'), set(sde.DIFFUSIONS) - {'sbdm'})
    }
    assert refused == sbdm | heun and total == 9 * 48


@pytest.mark.parametrize('sampler', [SDESampler(diffusion='sbdm'), SDESampler('heun', last_step=None)])
def test_refused_combinations_do_fail(sampler):
    objective = FlowObjective()
    sampled = sampler.sample(gaussian_flow(objective), torch.ones(1, 1, 1, 1), objective, lambda k: torch.ones(1, 1, 1, 1))
    assert not math.isfinite(float(sampled))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: ODESampler('heun'), "'heun': torchdiffeq has no fixed-step method of that name, its is 'heun2'"),
        (lambda: ODESampler('eular'), "unknown ODE method 'eular'.*did you mean 'euler'"),
        (lambda: ODESampler('euler', 1), 'num_steps=1 must be at least 2'),
        (lambda: ODESampler('dopri5', timestep_shift=0.3), "timestep_shift=0.3 moves a time grid, but 'dopri5' has none"),
        (lambda: ODESampler('euler', timestep_shift=0.0), 'timestep_shift=0.0 must be positive'),
        (lambda: ODESampler(rtol=0.0), 'rtol=0.0 must be positive'),
        (lambda: SDESampler('heun2'), "unknown SDE method 'heun2'.*did you mean 'heun'"),
        (lambda: SDESampler(diffusion='sigmas'), "unknown diffusion 'sigmas'.*did you mean 'sigma'"),
        (lambda: SDESampler(last_step='means'), "unknown last_step 'means'.*did you mean 'mean'"),
        (lambda: SDESampler(last_step_size=0.0), r'last_step_size=0.0 must lie between 0 and 1 \(last_step=None'),
        (lambda: SDESampler(last_step_size=1.0), 'last_step_size=1.0 must lie between 0 and 1'),
        (lambda: SDESampler(num_steps=1), 'num_steps=1 must be at least 2'),
        (lambda: AncestralSampler(1), 'num_steps=1 must be at least 2'),
        (lambda: DDIMSampler(1), 'num_steps=1 must be at least 2'),
    ],
)
def test_settings_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ('sampler', 'objective', 'message'),
    [
        (SDESampler(), DDPMObjective(), 'trained with FlowObjective, not DDPMObjective: use AncestralSampler or DDIMSampler'),
        (ODESampler(), DDPMObjective(), 'trained with FlowObjective, not DDPMObjective'),
        (AncestralSampler(), FlowObjective(), 'trained with DDPMObjective, not FlowObjective: use ODESampler or SDESampler'),
        (DDIMSampler(), FlowObjective(), 'trained with DDPMObjective, not FlowObjective'),
        (AncestralSampler(200), DDPMObjective(100), 'num_steps=200 of the sampler exceeds the 100 of the objective'),
        (DDIMSampler(300), DDPMObjective(), 'num_steps=300 of the sampler must divide the 1000 of the objective'),
        (SDESampler(last_step_size=0.9995), FlowObjective(prediction='noise'), 'leaves no time after the start at 0.001'),
    ],
)
def test_pairs_that_are_refused(sampler, objective, message):
    with pytest.raises(ValueError, match=message):
        sampler.check(objective)


def test_missing_solver_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchdiffeq', None)
    with pytest.raises(ImportError, match=r"pip install '\.\[gen\]'"):
        ODESampler().check(FlowObjective())


def test_descriptions_rebuild_the_sampler():
    samplers = [AncestralSampler(7), ODESampler('euler', 9, timestep_shift=0.5), ODESampler(rtol=1e-4), SDESampler('heun', 5)]
    for sampler in samplers:
        settings = sampler.describe()
        assert settings.pop('name') == type(sampler).__name__
        assert type(sampler)(**settings).describe() == copy.deepcopy(sampler).describe()
    assert 'last_step_size' not in SDESampler(last_step=None).describe()


# ------------------------------------------------------------------ networks that diverged


def diverged(kind, x, t):
    """From the first call on, from the middle on, or in the second of the samples alone."""
    if kind == 'second':
        return torch.stack([x[0], x[1] * math.nan])
    return x * math.nan if kind == 'first' or float(t[0]) > 0.4 else 1e3 * x


@pytest.mark.parametrize('kind', ['first', 'middle', 'second'])
@pytest.mark.parametrize('prediction', ['velocity', 'noise'])
def test_every_ode_method_ends_with_nan_where_the_network_diverged(kind, prediction):
    z, objective = torch.randn(1, 1, 2, 2).repeat(2, 1, 1, 1), FlowObjective(prediction=prediction)  # both overflow at once
    for method in ('dopri5', 'euler', 'heun2'):
        sample = ODESampler(method, num_steps=5).sample(lambda x, t: diverged(kind, x, t), z, objective, no_noise)
        assert sample.isfinite().flatten(1).all(1).tolist() == ([True, False] if kind == 'second' else [False, False])


def test_dopri5_with_tolerances_that_no_step_meets():
    """The field stays finite, and from the middle on it jumps however short a step is."""
    generator = torch.Generator().manual_seed(0)

    def jumps(x, t):
        return (float(t[0]) > 0.5) * 1e6 * torch.randn(x.shape, generator=generator)

    with pytest.raises(ValueError, match=r"'dopri5' found no step short enough for atol=1e-12, rtol=1e-12 \(underflow in dt"):
        ODESampler('dopri5', atol=1e-12, rtol=1e-12).sample(jumps, torch.zeros(1, 1, 2, 2), FlowObjective(), no_noise)


def test_an_assertion_of_the_network_is_its_own():
    def denoise(x, t):
        raise AssertionError('wrong size')

    with pytest.raises(AssertionError, match='wrong size'):
        ODESampler('dopri5').sample(denoise, torch.zeros(1, 1, 2, 2), FlowObjective(), no_noise)
