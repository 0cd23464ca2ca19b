"""ImageNet-C's noise: its numbers, and that a sample's noise is its own."""

import numpy as np
import pytest

from usp_mm.datasets import NOISE_SEVERITIES, EpochIndex, GaussianNoise


def noisy(transform, index, value=128, size=96):
    image = np.full((size, size, 3), value, np.uint8)
    return transform(dict(img=image, sample_idx=index))['img']


def test_severities_are_imagenet_cs():
    assert NOISE_SEVERITIES == (0.08, 0.12, 0.18, 0.26, 0.38)
    assert [GaussianNoise(severity=k).std for k in range(1, 6)] == list(NOISE_SEVERITIES)


@pytest.mark.parametrize('std', [0.08, 0.12])
def test_mean_and_deviation(std):
    out = noisy(GaussianNoise(std=std), 3)
    assert out.dtype == np.float32
    assert out.std() / 255 == pytest.approx(std, rel=0.02)
    assert out.mean() == pytest.approx(128, abs=0.6)


def test_clipping():
    out = noisy(GaussianNoise(severity=5), 0, value=250)
    assert out.min() >= 0
    assert out.max() == 255
    assert 0.4 < (out == 255).mean() < 0.6


def test_whole_numbers_are_cut_not_rounded():
    """As numpy's astype does it in ImageNet-C's own script."""
    exact, whole = (noisy(GaussianNoise(severity=2, to_uint8=flag), 4) for flag in (False, True))
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, np.floor(exact))
    assert (whole != np.round(exact)).mean() > 0.3


def test_noise_depends_on_seed_and_sample_alone():
    noise = GaussianNoise(severity=2)
    first = noisy(noise, 5)
    noisy(noise, 6)
    np.testing.assert_array_equal(first, noisy(GaussianNoise(severity=2), EpochIndex(5, epoch=3, seed=9)))
    assert np.corrcoef(first.ravel(), noisy(noise, 6).ravel())[0, 1] < 0.05
    assert np.corrcoef(first.ravel(), noisy(GaussianNoise(severity=2, seed=1), 5).ravel())[0, 1] < 0.05


@pytest.mark.parametrize('arguments', [dict(), dict(severity=1, std=0.1), dict(severity=0), dict(severity=6), dict(std=-1.0)])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match='GaussianNoise'):
        GaussianNoise(**arguments)


def test_a_sample_without_number():
    with pytest.raises(ValueError, match='sample_idx'):
        GaussianNoise(severity=1)(dict(img=np.zeros((4, 4, 3), np.uint8)))
