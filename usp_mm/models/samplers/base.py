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
    """Turns noise into latents by calling a denoiser at decreasing noise levels. It has no parameters.

    Shape legend: N samples, C×h×w latent.
    """

    #: The objective that the denoiser must have been trained for.
    objective_type: type[ObjectiveT]
    #: Number of network calls, or of points of the time grid.
    num_steps: int
    #: Whether a sample does not depend on the other samples in its batch.
    batch_invariant = True

    def check(self, objective: Objective) -> None:
        """Check that this sampler can sample a network that was trained with `objective`.

        Raises:
            ValueError: The objective is of another kind, or the settings are numerically invalid for it.
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
        """Generate latents from noise, without autograd.

        Args:
            denoise: (x, t) -> the network's output, with guidance if there is any; see `denoise_at`.
            z: Noise to start from, float32[N, C, h, w].
            objective: The objective that the network was trained with; `check` has accepted it.
            step_noise: Maps the number of a stochastic step, from 0, to its noise.
            on_step: Callback that is called after each step.

        Returns:
            Latents, float32[N, C, h, w].
        """

    @property
    def num_updates(self) -> int | None:
        """Number of calls of `on_step`; None if it is unknown, or if the sampler would have to keep extra states for them."""
        return None

    def describe(self) -> dict[str, Any]:
        """Name and settings, as plain values."""
        return dict(name=type(self).__name__, num_steps=self.num_steps)


def at_least(num_steps: int, least: int) -> int:
    """`num_steps`, or a ValueError if there are too few."""
    if num_steps < least:
        raise ValueError(f'num_steps={num_steps} must be at least {least}')
    return num_steps


def denoise_at(denoise: Denoise, x: Tensor, time: float) -> Tensor:
    """Output of `denoise` for states [N, C, h, w] that share one time or integer step.

    If `denoise` has a method `at`, it gets the time as a number and need not copy it from the device.
    """
    at = getattr(denoise, 'at', None)
    return denoise(x, times(x, len(x), time)) if at is None else at(x, time)
