import copy
import math

import pytest
import torch
from helpers import golden
from test_golden_dit import build

from usp_mm.functional import flow
from usp_mm.models.guidance import Guidance
from usp_mm.models.objectives import DDPMObjective, FlowObjective
from usp_mm.registry import MODELS

SIT_LOSSES = [name.removeprefix('loss_') for name in golden.load('sit_losses') if name.startswith('loss_')]


def tensors(name):
    return {key: torch.from_numpy(value) for key, value in golden.load(name).items()}


def recorded(model, labels):
    """The network for these labels, and the list of states that it was asked about."""
    seen = []

    def denoise(x_t, t):
        seen.append(x_t)
        return model(x_t, t, labels)

    return denoise, seen


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_ddpm_losses_are_the_official_ones():
    numbers = tensors('dit_losses')
    objective = MODELS.build(dict(type='DDPMObjective'))
    denoise, seen = recorded(build('DiT'), numbers['y'])
    losses = objective.losses(denoise, numbers['x'], numbers['t'], numbers['noise'])
    assert len(seen) == 1
    assert_equal(seen[0], numbers['x_t'])
    assert set(losses) == {'loss', 'mse', 'vb'}
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert_equal(loss, numbers[name])


@torch.no_grad()
@pytest.mark.parametrize('case', SIT_LOSSES)
def test_flow_losses_are_the_official_ones(case):
    numbers, (path, prediction, weighting) = tensors('sit_losses'), case.split('_')
    weighting = None if weighting == 'None' else weighting
    objective = MODELS.build(dict(type='FlowObjective', path=path.lower(), prediction=prediction, weighting=weighting))
    denoise, seen = recorded(build('SiT'), numbers['y'])
    losses = objective.losses(denoise, numbers['x'], numbers['t'], numbers['x0'])
    assert len(seen) == 1
    assert_equal(seen[0], numbers[f'xt_{path}'])
    _, u_t = flow.interpolate(objective.coefficients(numbers['t'].double()), numbers['x'], numbers['x0'])
    assert_equal(u_t, numbers[f'ut_{path}'])
    assert set(losses) == {'loss', 'flow'} and torch.equal(losses['loss'], losses['flow'])
    assert_equal(losses['loss'], numbers[f'loss_{case}'])


@torch.no_grad()
def test_lightning_losses_are_the_official_ones():
    numbers = tensors('lightning_losses')
    objective = FlowObjective(times='logit_normal', cosine_weight=0.5)
    losses = objective.losses(recorded(build('SiT'), numbers['y'])[0], numbers['x'], numbers['t'], numbers['x0'])
    assert_equal(losses['flow'], numbers['loss'])
    assert_equal(losses['cosine'], numbers['cos_loss'])
    assert_equal(losses['loss'], numbers['loss'] + 0.5 * numbers['cos_loss'])


def test_parts_of_the_loss_carry_no_gradient_and_the_loss_does():
    x, noise, t = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([0, 900])
    out = torch.randn(2, 8, 2, 2, requires_grad=True)
    losses = DDPMObjective().losses(lambda x_t, t: out, x, t, noise)
    assert not losses['mse'].requires_grad and not losses['vb'].requires_grad
    losses['loss'].sum().backward()
    (eps, fraction), grad = out.detach().chunk(2, dim=1), out.grad
    torch.testing.assert_close(grad[:, :4], 2 * (eps - noise) / 16)  # the bound leaves the mean alone
    assert grad[:, 4:].abs().min() > 0 and fraction.shape == (2, 4, 2, 2)


def test_losses_are_float32_whatever_the_network_returns():
    x, noise, t = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([0.2, 0.9])
    losses = FlowObjective(cosine_weight=1.0).losses(lambda x_t, t: x_t.bfloat16(), x, t, noise)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    losses = DDPMObjective().losses(lambda x_t, t: torch.cat([x_t, x_t], 1).bfloat16(), x, (t * 1000).long(), noise)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_losses_do_not_wait_for_the_device():
    """Tensors without values (device 'meta') raise when anything reads them."""
    x, u = torch.empty(2, 4, 2, 2, device='meta'), torch.empty(2, device='meta')
    for objective in (DDPMObjective(), FlowObjective(times='logit_normal', cosine_weight=1.0)):
        out = torch.empty(2, objective.out_channels(4), 2, 2, device='meta')
        losses = objective.losses(lambda x_t, t, out=out: out, x, objective.draw_times(u), x)
        assert {(loss.device.type, tuple(loss.shape)) for loss in losses.values()} == {('meta', (2,))}


def test_fixed_variance_leaves_the_mean_squared_error():
    x, noise, t = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([0, 900])
    objective = DDPMObjective(learn_sigma=False)
    losses = objective.losses(lambda x_t, t: torch.zeros_like(x_t), x, t, noise)
    assert set(losses) == {'loss', 'mse'} and objective.out_channels(4) == 4 and DDPMObjective().out_channels(4) == 8
    torch.testing.assert_close(losses['loss'], noise.square().mean((1, 2, 3)))


def test_steps_are_drawn_evenly_up_to_the_last():
    u = torch.tensor([0.0, 0.0009999, 0.001, 0.5, 1 - 2.0**-24])
    assert DDPMObjective().draw_times(u).tolist() == [0, 0, 1, 500, 999]
    assert DDPMObjective().integer_times and not FlowObjective().integer_times


def test_flow_times_fill_their_interval():
    u = torch.tensor([0.0, 0.5, 1 - 2.0**-24])
    assert FlowObjective().draw_times(u).tolist() == pytest.approx([0, 0.5, 1])
    assert FlowObjective(prediction='noise').draw_times(u).tolist() == pytest.approx([1e-3, 0.5, 1 - 1e-3])
    drawn = FlowObjective(times='logit_normal', logit_mean=1.0, logit_std=2.0).draw_times(torch.tensor([0.0, 0.5, 0.8413447]))
    assert drawn.dtype == torch.float32
    assert drawn.tolist() == pytest.approx([0, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-3))])


@pytest.mark.parametrize('prediction', flow.PREDICTIONS)
@pytest.mark.parametrize('path', sorted(flow.PATHS))
def test_every_time_of_training_has_a_finite_loss(path, prediction):
    u = torch.tensor([0.0, 2.0**-24, 0.5, 1 - 2.0**-24])
    x, noise = torch.randn(4, 4, 2, 2), torch.randn(4, 4, 2, 2)
    for weighting in (None,) if prediction == 'velocity' else (None, *flow.WEIGHTINGS):
        for times in ('uniform', 'logit_normal'):
            objective = FlowObjective(path, prediction, weighting, times)
            t = objective.draw_times(u)
            assert objective.losses(lambda x_t, t: x_t, x, t, noise)['loss'].isfinite().all()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(path='lineer'), "unknown path 'lineer'.*did you mean 'linear'"),
        (dict(prediction='velocty'), "did you mean 'velocity'"),
        (dict(weighting='likelyhood', prediction='noise'), "did you mean 'likelihood'"),
        (dict(times='logitnormal'), "did you mean 'logit_normal'"),
        (dict(weighting='likelihood'), "prediction='velocity' it must be None"),
        (dict(prediction='noise', cosine_weight=1.0), "prediction='noise': it compares velocities"),
        (dict(cosine_weight=-1.0), 'cosine_weight=-1.0 must be 0 or more'),
        (dict(logit_std=0.0), 'logit_std=0.0 must be positive'),
        (dict(time_convention='noise_at1'), "did you mean 'noise_at_1'"),
    ],
)
def test_flow_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FlowObjective(**settings)


@pytest.mark.parametrize('settings', [dict(num_steps=1), dict(beta_start=0.0), dict(beta_start=0.1), dict(beta_end=1.0)])
def test_schedules_that_are_refused(settings):
    with pytest.raises(ValueError, match=f'{next(iter(settings))}={next(iter(settings.values()))}'):
        DDPMObjective(**settings)


def test_descriptions_rebuild_the_objective():
    for objective in (DDPMObjective(num_steps=100), FlowObjective('vp', 'noise', 'likelihood', 'logit_normal', logit_mean=1.0)):
        settings = objective.describe()
        assert settings.pop('name') == type(objective).__name__
        assert type(objective)(**settings).describe() == copy.deepcopy(objective).describe()


def test_a_network_of_the_other_time_convention_is_called_and_read_in_its_own():
    x, noise, t = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0.0, 0.3, 1.0])
    weight = torch.randn(4, 4)

    def network(x_t, t, *labels):
        return torch.einsum('nchw,dc->ndhw', x_t, weight) + t.view(-1, 1, 1, 1)

    def reversed_network(x_t, t, *labels):
        return -network(x_t, 1 - t)

    for prediction, other in (('velocity', reversed_network), ('noise', lambda x_t, t, *y: network(x_t, 1 - t))):
        here, there = (FlowObjective(prediction=prediction, time_convention=c) for c in ('data_at_1', 'noise_at_1'))
        torch.testing.assert_close(there.losses(other, x, t, noise), here.losses(network, x, t, noise))
        # guidance's interval stays in this package's times
        guidance = Guidance(scale=2.0, interval=(0.2, 0.4))
        network.null_label = other.null_label = 10
        for time in (0.3, 0.7):
            times, label = torch.full((3,), time), torch.tensor([1, 2, 3])
            expected = guidance.denoise(network, label, here)(x, times)
            torch.testing.assert_close(guidance.denoise(other, label, there)(x, times), expected)
    assert 'time_convention' not in here.describe() and there.describe()['time_convention'] == 'noise_at_1'
    assert (here.network_times(0.25), there.network_times(0.25)) == (0.25, 0.75)
