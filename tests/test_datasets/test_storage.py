"""Records of moments."""

import numpy as np
import pytest
import torch
from torch import Tensor

from usp_mm.datasets.latent_cache.storage import STORAGES, MomentStorage


def random_moments(channels: int = 4, size: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mean = 5 * torch.randn(6, channels, size, size, generator=generator)
    logvar = -18 + 2 * torch.randn(6, channels, size, size, generator=generator)
    return torch.cat([mean, logvar], dim=1)


@pytest.mark.parametrize(
    ('dtype', 'rounded'), [('float32', torch.float32), ('bfloat16', torch.bfloat16), ('float16-full', torch.float16)]
)
@pytest.mark.parametrize('channels', [3, 4])
def test_round_trip_rounds_once(dtype: str, rounded: torch.dtype, channels: int) -> None:
    moments = random_moments(channels)
    storage = MomentStorage(dtype, 'moments', channels, 7)
    assert torch.equal(storage.decode(storage.encode(moments)), moments.to(rounded).float())


@pytest.mark.parametrize('channels', [3, 4])
def test_eight_bit_logvar_keeps_its_bound(channels: int) -> None:
    moments = random_moments(channels)
    storage = MomentStorage('float16', 'moments', channels, 7)
    mean, logvar = storage.decode(storage.encode(moments)).chunk(2, dim=1)
    true_mean, true_logvar = moments.chunk(2, dim=1)
    assert torch.equal(mean, true_mean.half().float())
    span = true_logvar.amax((2, 3), keepdim=True) - true_logvar.amin((2, 3), keepdim=True)
    error = (logvar - true_logvar).abs()
    assert (error <= span / 510 + 1e-5).all()
    assert error.max() > 0.01, 'a test of nothing'
    deviation = (0.5 * logvar).exp() / (0.5 * true_logvar).exp()
    assert (deviation - 1).abs().max() < 0.02


def test_eight_bit_logvar_at_its_edges() -> None:
    storage = MomentStorage('float16', 'moments', 1, 2)
    constant = torch.cat([torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), -17.3)], dim=1)
    assert torch.equal(storage.decode(storage.encode(constant)), constant)
    wild = torch.cat([torch.zeros(1, 1, 2, 2), torch.tensor([[[[-1000.0, 500.0], [-30.0, 20.0]]]])], dim=1)
    assert storage.decode(storage.encode(wild))[0, 1].flatten().tolist() == pytest.approx([-30, 20, -30, 20], abs=1e-5)


@pytest.mark.parametrize('dtype', STORAGES)
def test_means_alone_decode_to_a_posterior_without_variance(dtype: str) -> None:
    moments = random_moments()
    storage = MomentStorage(dtype, 'mean', 4, 7)
    mean, logvar = storage.decode(storage.encode(moments)).chunk(2, dim=1)
    rounded = {'float32': torch.float32, 'bfloat16': torch.bfloat16}.get(dtype, torch.float16)
    assert torch.equal(mean, moments[:, :4].to(rounded).float())
    assert (logvar == -30).all()
    assert storage.record.names == ('mean',)


def test_bytes_a_view() -> None:
    """At 4×28×28: 2 + 1 bytes a number, and 8 a channel for the range."""
    assert MomentStorage('float16', 'moments', 4, 28).record.itemsize == 3 * 4 * 28 * 28 + 4 * 8
    assert MomentStorage('bfloat16', 'moments', 4, 28).record.itemsize == 4 * 4 * 28 * 28


def test_unstorable_names_the_row() -> None:
    moments = random_moments()
    moments[1, 0, 0, 0] = 70_000
    moments[3, 5, 2, 2] = float('nan')
    moments[4, 0, 1, 1] = -float('inf')
    found = {
        dtype: MomentStorage(dtype, 'moments', 4, 7).unstorable(moments).nonzero().flatten().tolist() for dtype in STORAGES
    }
    assert found == {'float16': [1, 3, 4], 'float16-full': [1, 3, 4], 'bfloat16': [3, 4], 'float32': [3, 4]}


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown storage dtype 'floaf16'.*did you mean 'float16'"):
        MomentStorage('floaf16', 'moments', 4, 7)
    with pytest.raises(ValueError, match="store='sample' must be one of"):
        MomentStorage('float16', 'sample', 4, 7)


def test_records_are_an_ordinary_npy(tmp_path) -> None:
    storage = MomentStorage('float16', 'moments', 4, 7)
    records = storage.encode(random_moments())
    np.save(tmp_path / 'x.npy', records)
    assert np.load(tmp_path / 'x.npy', allow_pickle=False).tobytes() == records.tobytes()
