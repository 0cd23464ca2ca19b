"""The generators' network against the official code's numbers, built through the registry."""

import pytest
import torch
from helpers.golden import load, official_weights
from mmpretrain.registry import MODELS

ARCH = dict(embed_dims=48, depth=2, num_heads=3)


def build(kind='DiT', deviation=0.05, **kwargs):
    """The golden network: official weights, loaded strictly, in eval mode."""
    model = MODELS.build(dict(type=kind, arch=ARCH, img_size=64, num_classes=10, **kwargs))
    names = 'dit' if kwargs.get('norm_affine') is False else f'usp-{kind.lower()}'
    model.load_state_dict(official_weights(names, deviation))
    return model.eval()


def inputs(golden):
    return [torch.from_numpy(golden[key]) for key in ('x', 't', 'y')]


@pytest.mark.parametrize(('norm_affine', 'key'), [(True, 'out'), (False, 'out_without_affine')])
def test_dit(norm_affine, key):
    golden = load('dit_forward')
    with torch.no_grad():
        out = build(norm_affine=norm_affine)(*inputs(golden))
    torch.testing.assert_close(out, torch.from_numpy(golden[key]), atol=1e-5, rtol=0)


def test_sit():
    golden = load('sit_forward')
    with torch.no_grad():
        out = build('SiT')(*inputs(golden))
    torch.testing.assert_close(out, torch.from_numpy(golden['out']), atol=1e-5, rtol=0)


@pytest.mark.parametrize('kind', ['DiT', 'SiT'])
def test_weights_that_tell_the_activations_apart(kind):
    """With weights of 0.1 the exact GELU of the encoder gives other numbers than the generators' approximation."""
    golden = load(f'strong_{kind.lower()}')
    with torch.no_grad():
        out, exact = (build(kind, 0.1, **kwargs)(*inputs(golden)) for kwargs in ({}, dict(act='gelu')))
    torch.testing.assert_close(out, torch.from_numpy(golden['out']), atol=1e-5, rtol=0)
    assert float((exact - torch.from_numpy(golden['out'])).abs().max()) > 5e-5
