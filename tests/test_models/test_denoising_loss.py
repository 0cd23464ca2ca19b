"""The denoising loss against the equations, and what its values depend on."""

import math

import pytest
import torch
from helpers.small_world import ARCH, load_leaf

from usp_mm.functional import random
from usp_mm.models import DDPMObjective, FlowObjective
from usp_mm.models.denoising_loss import denoising_losses, summarise_losses
from usp_mm.registry import MODELS

CONFIGS = dict(
    dit='configs/dit/dit-tiny-p2_1xb64-2k_digits.py',
    sit='configs/sit/sit-tiny-p2_1xb64-2k_digits.py',
    lightning='configs/sit/sit-tiny-p2_lightning_1xb64-2k_digits.py',
)
NUM = 7


def build(name, **changes):
    """An untrained generator whose output is not 0 and whose average has weights of its own."""
    model = load_leaf(CONFIGS[name]).model
    model.data_preprocessor.update(load_vae=False, vae='sd-f8d4')
    model.denoiser.update(arch=dict(ARCH), img_size=64, num_classes=3)
    for key, value in changes.items():
        model[key] = value
    torch.manual_seed(0)
    built = MODELS.build(model)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    return built


def held_out():
    """Latents [N, C, h, w], classes and numbers of the samples."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(NUM, 4, 8, 8, generator=generator)
    return latents, torch.arange(NUM) % 3, torch.arange(NUM) * 5


def measure(model, num_times=4, rows=slice(None), **kwargs):
    latents, labels, samples = (value[rows] for value in held_out())
    return denoising_losses(model, latents, labels, samples, model.objective.time_grid(num_times), **kwargs)


def noise_of(sample, k, shape, seed):
    return random.normal(torch.tensor([sample]), torch.tensor([k]), shape, seed=seed, stream='denoising_loss')


@torch.no_grad()
def test_ddpm_is_the_error_of_the_noise():
    model, num, seed = build('dit').eval(), 4, 3
    expected = torch.zeros(NUM, num)
    for i, (x, y, sample) in enumerate(zip(*held_out(), strict=True)):
        for k, t in enumerate([125, 375, 625, 875]):
            beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
            alpha_bar = float(torch.prod(1 - beta[: t + 1]))
            noise = noise_of(int(sample), k, x.shape, seed)
            x_t = math.sqrt(alpha_bar) * x[None] + math.sqrt(1 - alpha_bar) * noise
            eps = model.denoiser_ema.module(x_t, torch.tensor([t]), y[None])[:, :4]
            expected[i, k] = (eps - noise).square().mean()
    torch.testing.assert_close(measure(model, num, seed=seed), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('name', ['sit', 'lightning'])
def test_a_flow_is_the_error_of_the_velocity(name):
    model, num = build(name).eval(), 4
    expected = torch.zeros(NUM, num)
    for i, (x, y, sample) in enumerate(zip(*held_out(), strict=True)):
        for k, t in enumerate([0.125, 0.375, 0.625, 0.875]):
            noise = noise_of(int(sample), k, x.shape, 0)
            velocity = model.denoiser_ema.module(t * x[None] + (1 - t) * noise, torch.tensor([t]), y[None])
            expected[i, k] = (velocity - (x - noise)).square().mean()
    torch.testing.assert_close(measure(model, num), expected, rtol=1e-5, atol=1e-5)


OBJECTIVES = [
    dict(path='gvp', prediction='velocity'),
    dict(path='vp', prediction='velocity'),
    dict(path='linear', prediction='noise'),
    dict(path='linear', prediction='score', weighting='velocity'),
    dict(time_convention='noise_at_1'),
    dict(times='logit_normal', cosine_weight=1.0),
]


@pytest.mark.parametrize('objective', OBJECTIVES, ids=str)
def test_every_flow_has_it_as_the_objective_does(objective):
    """One sample at one time, through `losses` itself."""
    model = build('sit', objective=dict(type='FlowObjective', **objective)).eval()
    latents, labels, samples = held_out()
    times = model.objective.time_grid(5)
    found = measure(model, 5)
    assert found.shape == (NUM, 5) and found.isfinite().all()
    network, noise = model.denoiser_ema.module, noise_of(int(samples[2]), 3, latents[2].shape, 0)
    with torch.no_grad():
        parts = model.objective.losses(lambda x, t: network(x, t, labels[2:3]), latents[2:3], times[3:4], noise)
    torch.testing.assert_close(found[2, 3], parts['flow'][0], rtol=1e-5, atol=1e-6)


def test_grids_are_midpoints_away_from_the_ends():
    assert DDPMObjective().time_grid(4).tolist() == [125, 375, 625, 875]
    assert DDPMObjective(num_steps=5).time_grid(5).tolist() == [0, 1, 2, 3, 4]
    assert DDPMObjective().time_grid(20).dtype == torch.int64
    assert FlowObjective().time_grid(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    ends = FlowObjective(prediction='noise').time_grid(2).tolist()
    assert ends == pytest.approx([1e-3 + 0.998 / 4, 1e-3 + 3 * 0.998 / 4])
    with pytest.raises(ValueError, match='6 times of 5 steps: ask for 1 to 5'):
        DDPMObjective(num_steps=5).time_grid(6)
    with pytest.raises(ValueError, match='0 times: ask for at least 1'):
        FlowObjective().time_grid(0)


@pytest.mark.parametrize('name', ['dit', 'sit', 'lightning'])
def test_a_value_does_not_depend_on_its_batch_to_the_last_bit(name):
    model = build(name)
    whole = measure(model)
    for size in (1, 3):
        parts = [measure(model, rows=slice(start, start + size)) for start in range(0, NUM, size)]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(measure(model, seed=1), whole)


def test_which_weights_and_which_mode():
    """The average by default, in evaluation mode, whatever mode the model is in; afterwards it is in that mode again."""
    model = build('sit').train()
    model.denoiser_ema.module.train()
    averaged = measure(model)
    assert model.denoiser.training and model.denoiser_ema.module.training
    assert torch.equal(averaged, measure(model, sample_model='ema'))
    trained = measure(model, sample_model='model')
    assert not torch.equal(averaged, trained)
    model.denoiser_ema.module.load_state_dict(model.denoiser.state_dict())
    assert torch.equal(measure(model), trained)
    alone = build('sit', ema=None, sample_model='model')
    with pytest.raises(ValueError, match='built with ema=None'):
        measure(alone, sample_model='ema')


def test_classes_count_and_wrong_ones_are_refused():
    model = build('sit')
    latents, labels, samples = held_out()
    times = model.objective.time_grid(2)
    other = denoising_losses(model, latents, (labels + 1) % 3, samples, times)
    assert not torch.equal(other, measure(model, 2))
    with pytest.raises(ValueError, match='the data have a class 3, the generator 3 classes'):
        denoising_losses(model, latents, labels + 1, samples, times)


def test_sums_are_exact_in_any_order():
    losses = torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
    losses[7] *= 1e6
    found = summarise_losses(losses)
    assert found == summarise_losses(losses.flip(0))
    assert found['denoising_loss'] == pytest.approx(float(losses.double().mean()), rel=1e-14)
    assert found['per_time'] == pytest.approx(losses.double().mean(0).tolist(), rel=1e-14)
    assert found['standard_error'] == pytest.approx(float(losses.double().mean(1).std()) / 50**0.5, rel=1e-12)
    assert summarise_losses(losses[:1])['standard_error'] is None
    losses[3, 2] = math.nan
    with pytest.raises(ValueError, match='at time 2 of the grid is not finite, for sample 3 of 50'):
        summarise_losses(losses)
