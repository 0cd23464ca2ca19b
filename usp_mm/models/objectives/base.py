"""The interface of training objectives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: (x_t [N, C, h, w], t [N]) -> the network's output, [N, C or 2C, h, w].
Denoise = Callable[[Tensor, Tensor], Tensor]
#: The same, with a second result, such as hidden tokens, that the objective passes on unchanged.
DenoiseMore = Callable[[Tensor, Tensor], tuple[Tensor, Any]]
#: (x_t, t, further arguments) -> the network's output.
Network = Callable[..., Tensor]


def times(x: Tensor, num: int, time: float) -> Tensor:
    """A tensor [num] that repeats a time (in the dtype of `x`) or an integer step (int64), on the device of `x`."""
    return torch.full((num,), time, dtype=torch.int64 if isinstance(time, int) else x.dtype, device=x.device)


class Objective(ABC):
    """A training loss on noisy latents. It has no parameters.

    Shape legend: N samples, C×h×w latent.
    """

    #: Whether times are integer steps (int64); otherwise they are float32.
    integer_times: bool
    #: The part of `losses` that is the plain error of the prediction, without the terms that are added to it.
    error: str

    @property
    @abstractmethod
    def left_out(self) -> tuple[str, ...]:
        """The other parts of the loss."""

    @abstractmethod
    def out_channels(self, channels: int) -> int:
        """Number of channels that the network must return for latents with `channels` channels."""

    @abstractmethod
    def draw_times(self, u: Tensor) -> Tensor:
        """Uniform random numbers in [0, 1), [N] -> training times, [N]."""

    @abstractmethod
    def time_grid(self, num: int) -> Tensor:
        """Midpoints of `num` equal parts of the training times, in this package's convention, [num], on the CPU.

        Raises:
            ValueError: There are not as many times.
        """

    def network_times(self, t: Tensor | float) -> Any:
        """Convert times from this package's convention to the one that the network was trained with."""
        return t

    def adapted(self, network: Network) -> Network:
        """Wrap a network so that its times and signs follow this package's convention; most networks need no wrapper."""
        return network

    def losses(self, denoise: Denoise, x: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Compute the loss of each sample with one call of the network.

        Args:
            denoise: The network in its own convention, not the result of `adapted`.
            x: Scaled latents, float32[N, C, h, w].
            t: Times in this package's convention, [N].
            noise: Standard normal noise with the shape of `x`.

        Returns:
            'loss', which is minimised, and its parts, float32[N] each.
        """
        return self.losses_and_more(lambda x_t, t: (denoise(x_t, t), None), x, t, noise)[0]

    @abstractmethod
    def losses_and_more(self, denoise: DenoiseMore, x: Tensor, t: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Any]:
        """Like `losses`, for a network with a second result (such as tokens for `REPA`), which is returned too."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name and settings, as plain values."""
