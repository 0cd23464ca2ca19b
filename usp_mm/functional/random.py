"""Reproducible noise: each number is a function of (seed, stream, epoch, sample, position) and nothing else.

Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (SC 2011), in torch integer arithmetic: a batch of samples is one vectorised call on any
device, and the draws of a sample are the same whatever the batch size, number of workers or
processes, and on CPU and GPU alike.

Shape legend: N samples, M numbers a sample.
"""

import math

import torch
from torch import Tensor

_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_ROUNDS = 10

#: Each use has a stream of its own, so that no two uses share random numbers.
# fmt: off
STREAMS = {name: i for i, name in enumerate((
    'mask', 'posterior', 'flip', 'crop', 'latent_noise', 'noise_level',
    'noise', 'timestep', 'label_dropout', 'start_noise', 'step_noise', 'label',
    'image_noise', 'divergence', 'label_subset', 'denoising_loss', 'route',
))}
# fmt: on


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute four 32-bit words, stored as int64, for each counter of 4 × 32 bits, given as int64 tensors that broadcast."""
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]  # wrap modulo 2^64, as wanted
        high0, low0 = (product0 >> 32) & _LOW, product0 & _LOW
        high1, low1 = (product1 >> 32) & _LOW, product1 & _LOW
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def _words(samples: Tensor, epochs: Tensor, num: int, seed: int, stream: str) -> Tensor:
    """`num` 32-bit words per sample, int64[N, num], for sample and epoch numbers int64[N]."""
    blocks = torch.arange(math.ceil(num / 4), device=samples.device)
    key = (seed & _LOW, (seed >> 32) & _LOW ^ (STREAMS[stream] << 24))
    counter = (blocks[None], epochs[:, None] & _LOW, samples[:, None] & _LOW, (samples[:, None] >> 32) & _LOW)
    return torch.stack(philox4x32(counter, key), dim=-1).flatten(1)[:, :num]


def uniform(samples: Tensor, epochs: Tensor, num: int, *, seed: int, stream: str) -> Tensor:
    """Uniform draws in [0, 1), multiples of 2^-24.

    Args:
        samples: int64[N], number of each row's sample in the data set.
        epochs: int64[N], epoch (or step) of each draw.
        num: Number of draws per sample.
        seed: An integer from 0 to 2^56 - 1.
        stream: A key of `STREAMS`.

    Returns:
        float32[N, num] on the device of `samples`.
    """
    return (_words(samples, epochs, num, seed, stream) >> 8).to(torch.float32) * 2.0**-24


def normal(samples: Tensor, epochs: Tensor, shape: tuple[int, ...], *, seed: int, stream: str) -> Tensor:
    """Standard normal draws by Box-Muller, float32[N, *shape]; arguments as in `uniform`."""
    num = math.prod(shape)
    half = math.ceil(num / 2)
    u = uniform(samples, epochs, 2 * half, seed=seed, stream=stream)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :half]))  # 1 - u lies in (0, 1]
    angle = (2.0 * math.pi) * u[:, half:]
    draws = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return draws[:, :num].reshape(samples.shape[0], *shape)
