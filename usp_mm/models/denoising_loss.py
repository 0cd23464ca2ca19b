"""The loss of a generator on latents that it was not trained on, at fixed times and with fixed noise.

It is the error that training minimises (DDPM, arXiv 2006.11239, eq. 14; SiT, arXiv 2401.08740, eq. 5), without what makes the
training loss fluctuate: every evaluation has the same samples, times and noise, and no class is dropped. Nothing is sampled.

Shape legend: N samples, T times, C×h×w latent.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from usp_mm.functional import precision, random

if TYPE_CHECKING:
    from .generator import LatentDiffusionGenerator

#: Number of a sample's times in one call of the network.
TIMES_AT_ONCE = 32


@torch.no_grad()
def denoising_losses(
    model: 'LatentDiffusionGenerator',
    latents: Tensor,
    labels: Tensor,
    samples: Tensor,
    times: Tensor,
    *,
    seed: int = 0,
    sample_model: str | None = None,
) -> Tensor:
    """The mean squared error of the prediction, for each sample and time.

    For DDPM it is the error of the noise, without the term that trains the variance; for a flow, that of what the network
    predicts, with the objective's weighting and without the cosine term. REPA's alignment is no part of it. The noise of a
    sample at a time depends only on (seed, number of the sample, index of the time).

    Each call of the network holds times of one sample. Matrix products round differently for another number of rows; this way
    a value does not depend on the batch that a sample comes in, to the last bit. Precision is float32, or TF32 on a GPU if the
    model has `tf32`, whatever its `sample_dtype`.

    Args:
        model: The generator, in any mode.
        latents: Scaled latents, float32[N, C, h, w], on the model's device.
        labels: Their classes, int64[N].
        samples: Their numbers in the data set, int64[N].
        times: Times in this package's convention, [T], as from `Objective.time_grid`.
        seed: Seed of the noise, from 0 to 2^56 - 1.
        sample_model: Weights to use, 'ema' or 'model'; None for the model's own choice.

    Returns:
        float32[N, T], on the model's device.

    Raises:
        ValueError: A label is no class, or there is no average.
    """
    network = model.network(sample_model)
    _check_labels(labels, model.denoiser.num_classes)
    device = latents.device
    labels, samples, times = labels.to(device), samples.to(device), times.to(device)
    with _evaluated(network), precision.tf32(model.tf32) if device.type == 'cuda' else nullcontext():
        rows = zip(latents, labels, samples, strict=True)
        return torch.stack([_losses_of_one(network, model.objective, *row, times, seed) for row in rows])


def _losses_of_one(
    network: nn.Module, objective: Any, latent: Tensor, label: Tensor, sample: Tensor, times: Tensor, seed: int
) -> Tensor:
    """The errors of one sample, float32[T]: latent [C, h, w], label and sample int64[]."""
    losses = []
    for first in range(0, len(times), TIMES_AT_ONCE):
        t = times[first : first + TIMES_AT_ONCE]
        index, num = torch.arange(first, first + len(t), device=t.device), len(t)
        noise = random.normal(sample.expand(num), index, tuple(latent.shape), seed=seed, stream='denoising_loss')
        classes = label.expand(num)
        parts = objective.losses(
            lambda x_t, t, y=classes: network(x_t, t, y).float(), latent.expand(num, *latent.shape), t, noise
        )
        losses.append(parts[objective.error])
    return torch.cat(losses)


def summarise_losses(losses: Tensor) -> dict[str, Any]:
    """Means of the losses of all samples, float[N, T].

    Sums are exact (`math.fsum`), and so do not depend on the order of the samples.

    Returns:
        dict(denoising_loss, standard_error, per_time): the mean; the standard error of this mean over samples, None for a
        single one; and the mean at each time, a list of T numbers.

    Raises:
        ValueError: A loss is not finite.
    """
    broken = (~losses.isfinite()).nonzero()
    if len(broken):
        sample, time = broken[0].tolist()
        raise ValueError(
            f'the denoising loss at time {time} of the grid is not finite, for sample {sample} of {len(losses)} among others: '
            'check that the training did not diverge, and that the latents are finite'
        )
    num, rows = len(losses), losses.double().tolist()
    per_time = [math.fsum(column) / num for column in zip(*rows, strict=True)]
    mean = math.fsum(value for row in rows for value in row) / losses.numel()
    squares = math.fsum((math.fsum(row) / len(row) - mean) ** 2 for row in rows)
    error = math.sqrt(squares / (num - 1) / num) if num > 1 else None
    return dict(denoising_loss=mean, standard_error=error, per_time=per_time)


def _check_labels(labels: Tensor, num_classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f'the data have a class {int(wrong[0])}, the generator {num_classes} classes: give its own data')


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
