"""The simple feature pyramid against the paper's text, written with torch's functions."""

import pytest
import torch
from torch.nn import functional as F

from usp_mm.detection.pyramid import SimpleFeaturePyramid

DIMS, OUT = 16, 6


@pytest.fixture
def pyramid():
    torch.manual_seed(0)
    model = SimpleFeaturePyramid(DIMS, OUT)
    for name, parameter in model.named_parameters():
        if 'norm' in name:
            torch.nn.init.normal_(parameter)
    return model


def layer_norm(x, weight, bias):
    """Over the channels of each pixel."""
    mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]


def reference(w, x):
    """Section 3: deconvolutions, identity, max pooling; then 1 x 1 and 3 x 3 convolutions, each with LayerNorm."""

    def up(level, name, x):
        return F.conv_transpose2d(x, w[f'levels.{level}.{name}.weight'], w[f'levels.{level}.{name}.bias'], stride=2)

    def norm(level, name, x):
        return layer_norm(x, w[f'levels.{level}.{name}.weight'], w[f'levels.{level}.{name}.bias'])

    scaled = [up(0, 'up2', F.gelu(norm(0, 'up1_norm', up(0, 'up1', x)))), up(1, 'up1', x), x, F.max_pool2d(x, 2)]
    maps = []
    for level, one in enumerate(scaled):
        one = norm(level, 'reduce_norm', F.conv2d(one, w[f'levels.{level}.reduce.weight']))
        maps.append(norm(level, 'smooth_norm', F.conv2d(one, w[f'levels.{level}.smooth.weight'], padding=1)))
    return [*maps, maps[-1][:, :, ::2, ::2]]


@pytest.mark.parametrize('size', [(4, 4), (6, 10)])
def test_is_the_papers(pyramid, size):
    x = torch.randn(2, DIMS, *size, generator=torch.Generator().manual_seed(1))
    found, expected = pyramid((torch.zeros(1), x)), reference(pyramid.state_dict(), x)
    rows, columns = size
    assert [tuple(one.shape[2:]) for one in found[:4]] == [(rows * s // 2, columns * s // 2) for s in (8, 4, 2, 1)]
    assert len(found) == 5
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_names_and_shapes_of_the_parameters(pyramid):
    shapes = {name: tuple(value.shape) for name, value in pyramid.state_dict().items()}
    ends = {
        'reduce_norm.weight',
        'reduce_norm.bias',
        'smooth_norm.weight',
        'smooth_norm.bias',
        'reduce.weight',
        'smooth.weight',
    }
    ups = {'up1.weight', 'up1.bias'}
    more = {0: ups | {'up1_norm.weight', 'up1_norm.bias', 'up2.weight', 'up2.bias'}, 1: ups, 2: set(), 3: set()}
    assert set(shapes) == {f'levels.{level}.{name}' for level in more for name in ends | more[level]}
    assert [shapes[f'levels.{level}.reduce.weight'] for level in more] == [
        (OUT, d, 1, 1) for d in (DIMS // 4, DIMS // 2, DIMS, DIMS)
    ]
    assert shapes['levels.0.up1.weight'] == (DIMS, DIMS // 2, 2, 2) and shapes['levels.0.up2.weight'] == (
        DIMS // 2,
        DIMS // 4,
        2,
        2,
    )


def test_a_width_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(ValueError, match='in_channels=10 must be a multiple of 4'):
        SimpleFeaturePyramid(10)
