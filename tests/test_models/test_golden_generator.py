"""Losses and whole sampling chains of the official code, through a generator built by the registry."""

import numpy as np
import pytest
import torch
from helpers.golden import load, official_weights
from mmpretrain.registry import MODELS

ARCH = dict(embed_dims=48, depth=2, num_heads=3)
ODES = [f'ode_{prediction}_{method}' for prediction in ('velocity', 'noise') for method in ('euler_9', 'heun2_9', 'dopri5_5')]


def build(kind, objective, sampler, **kwargs):
    """A generator with the golden network as `orig` and `ema` weights."""
    cfg = dict(
        type='LatentDiffusionGenerator',
        data_preprocessor=dict(vae='sd-f8d4', load_vae=False),
        denoiser=dict(type=kind, arch=ARCH, img_size=64, num_classes=10),
        objective=objective,
        sampler=sampler,
        **kwargs,
    )
    model = MODELS.build(cfg).eval()
    model.denoiser.load_state_dict(official_weights(f'usp-{kind.lower()}'))
    model._sync_ema()
    return model


def arrays(name, *keys):
    golden = load(name)
    return [torch.from_numpy(np.asarray(golden[key])) for key in keys]


def losses(model, x, t, y, noise):
    with torch.no_grad():
        return model.objective.losses(lambda x_t, t: model.denoiser(x_t, t, y), x, t, noise)


def sample(model, z, y, noise):
    """The chain from `z` with recorded step noise [steps, N or 2N, C, h, w]."""
    denoise = model.guidance.denoise(model.network(), y, model.objective)
    with torch.no_grad():
        return model.sampler.sample(denoise, z, model.objective, lambda k: noise[k][: len(z)])


def assert_chain(found, expected):
    """1e-4 relative to the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_dit_losses():
    model = build('DiT', dict(type='DDPMObjective'), dict(type='AncestralSampler', num_steps=10))
    found = losses(model, *arrays('dit_losses', 'x', 't', 'y', 'noise'))
    for key in ('mse', 'vb', 'loss'):
        torch.testing.assert_close(found[key], arrays('dit_losses', key)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(('name', 'sampler'), [
    ('dit_sample_ddpm10', dict(type='AncestralSampler', num_steps=10)),
    ('dit_sample_ddim8', dict(type='DDIMSampler', num_steps=8)),
])  # fmt: skip
def test_dit_chains(name, sampler):
    z, y, noise, scale, expected = arrays(name, 'z', 'y', 'noise', 'cfg_scale', 'sample')
    model = build('DiT', dict(type='DDPMObjective'), sampler, guidance=dict(scale=float(scale), channels=3))
    noise = noise[:, : len(z)] if noise.shape[1] == 2 * len(z) else noise
    assert_chain(sample(model, z, y, noise), expected)


def test_guided_output():
    for name, kind in (('dit_forward', 'DiT'), ('sit_forward', 'SiT')):
        objective, sampler = (('DDPMObjective', 'AncestralSampler'), ('FlowObjective', 'SDESampler'))[kind == 'SiT']
        x, t, y, scale, expected = arrays(name, 'x', 't', 'y', 'cfg_scale', 'cfg_out')
        model = build(kind, dict(type=objective), dict(type=sampler), guidance=dict(scale=float(scale), channels=3))
        with torch.no_grad():
            found = model.guidance.denoise(model.denoiser, y, model.objective)(x, t)
        torch.testing.assert_close(found, expected[:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize('path', ['linear', 'gvp', 'vp'])
@pytest.mark.parametrize(('prediction', 'weighting'), [
    ('velocity', None), *((p, w) for p in ('noise', 'score') for w in (None, 'velocity', 'likelihood')),
])  # fmt: skip
def test_sit_losses(path, prediction, weighting):
    objective = dict(type='FlowObjective', path=path, prediction=prediction, weighting=weighting)
    model = build('SiT', objective, dict(type='SDESampler') if path != 'vp' else dict(type='ODESampler', method='euler'))
    key = f'loss_{ {"linear": "Linear", "gvp": "GVP", "vp": "VP"}[path] }_{prediction}_{weighting}'
    x, t, y, x0, expected = arrays('sit_losses', 'x', 't', 'y', 'x0', key)
    torch.testing.assert_close(losses(model, x, t, y, x0)['loss'], expected, rtol=1e-5, atol=1e-5)


def test_lightning_losses():
    objective = dict(type='FlowObjective', cosine_weight=1.0)
    model = build('SiT', objective, dict(type='ODESampler', method='euler'))
    found = losses(model, *arrays('lightning_losses', 'x', 't', 'y', 'x0'))
    flow, cosine = arrays('lightning_losses', 'loss', 'cos_loss')
    torch.testing.assert_close(found['loss'], flow + cosine, rtol=0, atol=1e-5)


@pytest.mark.parametrize('key', ODES)
def test_sit_odes(key):
    _, prediction, method, points = key.split('_')
    objective = dict(type='FlowObjective', prediction=prediction)
    model = build('SiT', objective, dict(type='ODESampler', method=method, num_steps=int(points)))
    z, y, expected = arrays('sit_sample', 'z', 'y', key)
    assert_chain(sample(model, z, y, None), expected)


@pytest.mark.parametrize('key', [key for key in load('sit_sample') if key.startswith('sde_') and key != 'sde_noise'])
def test_sit_sdes(key):
    _, prediction, method, diffusion, last = key.lower().split('_')
    sampler = dict(
        type='SDESampler', method=method, num_steps=10, diffusion=diffusion, last_step=None if last == 'none' else last
    )
    model = build('SiT', dict(type='FlowObjective', prediction=prediction), sampler)
    z, y, noise, expected = arrays('sit_sample', 'z', 'y', 'sde_noise', key)
    assert_chain(sample(model, z, y, noise), expected)
