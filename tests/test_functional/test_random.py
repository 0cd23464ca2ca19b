import torch

from usp_mm.functional.random import normal, philox4x32, uniform


def words(counter, key):
    return [int(w) for w in philox4x32(tuple(torch.tensor([c]) for c in counter), key)]


def test_philox_known_answers():
    """Random123's kat_vectors, philox4x32 10."""
    assert words((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert words((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert words(pi, (0xA4093822, 0x299F31D0)) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_a_draw_depends_on_its_address_alone():
    samples, epochs = torch.tensor([7, 3, 7, 2**40]), torch.tensor([0, 0, 1, 0])
    batch = normal(samples, epochs, (3, 5), seed=5, stream='posterior')
    alone = normal(samples[3:], epochs[3:], (3, 5), seed=5, stream='posterior')
    assert torch.equal(batch[3:], alone)
    assert not torch.equal(batch[0], batch[2])
    for seed, stream in ((6, 'posterior'), (5, 'mask'), (5 + 2**32, 'posterior')):
        assert not torch.equal(batch, normal(samples, epochs, (3, 5), seed=seed, stream=stream))


def test_distributions():
    samples, epochs = torch.arange(2000), torch.zeros(2000, dtype=torch.long)
    u = uniform(samples, epochs, 101, seed=0, stream='mask').double()
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 2e-3 and abs(u.var() - 1 / 12) < 1e-3
    x = normal(samples, epochs, (101,), seed=0, stream='posterior').double()
    assert abs(x.mean()) < 5e-3 and abs(x.var() - 1) < 1e-2
    assert abs((x**4).mean() - 3) < 6e-2
    assert abs((x[:, :50] * x[:, 50:100]).mean()) < 1e-2
