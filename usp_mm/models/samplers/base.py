"""The interface of samplers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torch import Tensor

from ..objectives import DDPMObjective, Objective
from ..objectives.base import Denoise, times

#: k -> the standard normal noise [N, C, h, w] of the k-th stochastic step.
StepNoise = Callable[[int], Tensor]
#: (k, state [N, C, h, w]) after the k-th step.
OnStep = Callable[[int, Tensor], None]

ObjectiveT = TypeVar('ObjectiveT', bound=Objective)


class Sampler(ABC, Generic[ObjectiveT]):
    """Turns noise into latents by calling a denoiser at falling noise levels. It has no parameters.

    Shape legend: N samples, C×h×w latent.
    """

    #: The objective that the denoiser must have been trained for.
    objective_type: type[ObjectiveT]
    #: Whether a sample is the same whatever the others in its batch.
    batch_invariant = True

    def check(self, objective: Objective) -> None:
        """Refuse what can't be sampled.

        Raises:
            ValueError: an objective of another kind, or settings that are numerically invalid for it.
        """
        if not isinstance(objective, self.objective_type):
            fitting = 'AncestralSampler or DDIMSampler' if isinstance(objective, DDPMObjective) else 'ODESampler or SDESampler'
            raise ValueError(
                f'{type(self).__name__} samples models trained with {self.objective_type.__name__}, '
                f'not {type(objective).__name__}: use {fitting}'
            )

    @abstractmethod
    def sample(
        self, denoise: Denoise, z: Tensor, objective: ObjectiveT, step_noise: StepNoise, on_step: OnStep | None = None
    ) -> Tensor:
        """Run the chain, without autograd.

        Args:
            denoise: (x, t) -> the network's output, guided if it is to be; see `denoise_at`.
            z: start noise, float32[N, C, h, w].
            objective: what the network was trained for; `check` accepted it.
            step_noise: noise by number of the stochastic step, from 0.
            on_step: called after each step.

        Returns:
            Latents, float32[N, C, h, w].
        """

    @property
    def num_updates(self) -> int | None:
        """Calls of `on_step`; None: unknown, or states would be kept for it that the sampler has no use for."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name and settings, as plain values."""


def at_least(num_steps: int, least: int) -> int:
    """`num_steps`, or a ValueError if there are too few."""
    if num_steps < least:
        raise ValueError(f'num_steps={num_steps} must be at least {least}')
    return num_steps


def denoise_at(denoise: Denoise, x: Tensor, time: float) -> Tensor:
    """What `denoise` makes of states [N, C, h, w] at one time, or integer step, for all.

    A `denoise` with a method `at` is told the number, so that it needn't wait for the device to learn it.
    """
    at = getattr(denoise, 'at', None)
    return denoise(x, times(x, len(x), time)) if at is None else at(x, time)
