"""Likelihood of data under a flow: bits per dimension of their latents (SiT, arXiv 2401.08740; arXiv 1806.07366)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from usp_mm.functional import random
from usp_mm.models import FlowObjective, LatentDiffusionGenerator, ODESampler
from usp_mm.models.guidance import Guidance
from usp_mm.models.likelihood import bits_per_dimension, log_likelihood
from usp_mm.probing.data import ProbeData


@dataclass(frozen=True)
class LikelihoodSettings:
    """Settings of the likelihood's integral.

    Attributes:
        num: Number of samples, spread evenly over the data; None for all.
        probes: Number of random vectors per sample, over which the estimate is averaged.
        batch_size: Number of samples at a time; adaptive methods choose their steps for a whole batch.
        seed: Seed of the random vectors; those of sample i depend only on (seed, i).

    Raises:
        ValueError: A value is invalid.
    """

    num: int | None = None
    probes: int = 1
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('num', 'probes', 'batch_size'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'{name}={value} must be 1 or more')
        if not 0 <= self.seed < 2**56:
            raise ValueError(f'seed={self.seed} must be from 0 to 2^56 - 1')


def check_flow(model: LatentDiffusionGenerator) -> None:
    """Raise ValueError unless the generator's samples follow a velocity field."""
    if not isinstance(model.objective, FlowObjective):
        raise ValueError(
            f'a likelihood needs a flow, this generator was trained with {type(model.objective).__name__}: give a SiT'
        )


def measure_likelihood(
    model: LatentDiffusionGenerator,
    data: ProbeData,
    sampler: ODESampler,
    settings: LikelihoodSettings,
    sample_model: str | None = None,
) -> dict[str, Any]:
    """Bits per dimension of latents, each conditioned on its own class.

    Args:
        model: Generator in eval mode; its data preprocessor takes the mode of a posterior.
        data: Labelled images or cached latents.
        sampler: Solver of the ODE.
        settings: Settings of the integral.
        sample_model: Weights to use, 'ema' or 'model'; None for the model's own choice.

    Returns:
        dict(mean, standard_error, num, dims, bits, indices, sampler): bits per dimension of all samples, and their list.

    Raises:
        ValueError: The generator is not a flow, or a sample has a class that the generator does not have.
    """
    check_flow(model)
    sampler.check(model.objective)
    num = len(data) if settings.num is None else min(settings.num, len(data))
    indices = [i * len(data) // num for i in range(num)]
    batches = [indices[i : i + settings.batch_size] for i in range(0, num, settings.batch_size)]
    network, bits, dims = model.network(sample_model), [], 0
    with tqdm(total=num, desc='likelihood', unit='img', leave=False) as progress:
        for batch, rows in zip(data.loader(batches), batches, strict=True):
            prepared = model.data_preprocessor(batch, training=False)
            latents, labels = prepared['inputs'], _labels(prepared['data_samples'], model.denoiser.num_classes)
            denoise = Guidance().denoise(network, labels.to(latents.device), model.objective)
            nats = [
                log_likelihood(denoise, latents, model.objective, sampler, _signs(rows, latents, settings.seed, k))[0]
                for k in range(settings.probes)
            ]
            dims = latents[0].numel()
            bits.append(bits_per_dimension(torch.stack(nats).mean(0), dims).cpu())
            progress.update(len(rows))
    values = torch.cat(bits)
    error = float(values.std()) / math.sqrt(num) if num > 1 else None
    return dict(
        mean=float(values.mean()), standard_error=error, num=num, dims=dims, bits=values.tolist(), indices=indices,
        sampler=sampler.describe(),
    )  # fmt: skip


def _labels(data_samples: list, num_classes: int) -> Tensor:
    labels = torch.cat([sample.gt_label for sample in data_samples])
    if int(labels.max()) >= num_classes:
        raise ValueError(f'the data have a class {int(labels.max())}, the generator {num_classes} classes: give its own data')
    return labels


def _signs(rows: list[int], like: Tensor, seed: int, number: int) -> Tensor:
    """Random +1 and -1, [N, C, h, w]: vector `number` of each sample."""
    samples = torch.tensor(rows, device=like.device)
    draws = random.uniform(samples, torch.full_like(samples, number), like[0].numel(), seed=seed, stream='divergence')
    return torch.where(draws < 0.5, -1.0, 1.0).reshape(like.shape).to(like)
