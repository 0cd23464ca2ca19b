"""The interface of training objectives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: (x_t [N, C, h, w], t [N]) -> the network's output, [N, C or 2C, h, w].
Denoise = Callable[[Tensor, Tensor], Tensor]
#: The same, and with it what else is wanted of that call, which the objective hands on.
DenoiseMore = Callable[[Tensor, Tensor], tuple[Tensor, Any]]
#: (x_t, t, further arguments) -> the network's output.
Network = Callable[..., Tensor]


def times(x: Tensor, num: int, time: float) -> Tensor:
    """A time, or an integer step, `num` times on the device of `x`, of its type or int64: [num]."""
    return torch.full((num,), time, dtype=torch.int64 if isinstance(time, int) else x.dtype, device=x.device)


class Objective(ABC):
    """A loss on noisy latents. It has no parameters.

    Shape legend: N samples, C×h×w latent.
    """

    #: Whether times are steps, int64, or float32.
    integer_times: bool

    @abstractmethod
    def out_channels(self, channels: int) -> int:
        """Channels that the network must return for latents of `channels`."""

    @abstractmethod
    def draw_times(self, u: Tensor) -> Tensor:
        """Uniform draws in [0, 1), [N] -> times of training, [N]."""

    def network_times(self, t: Tensor | float) -> Any:
        """Times of this package -> those that the network was trained with."""
        return t

    def adapted(self, network: Network) -> Network:
        """The network, called with times and answering with signs of this package; most networks know no others."""
        return network

    def losses(self, denoise: Denoise, x: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """One call of the network.

        Args:
            denoise: the network itself; `adapted` is called here.
            x: scaled latents, float32[N, C, h, w].
            t: times, [N].
            noise: standard normal, like `x`.

        Returns:
            float32[N] each: 'loss', to be minimised, and its parts.
        """
        return self.losses_and_more(lambda x_t, t: (denoise(x_t, t), None), x, t, noise)[0]

    @abstractmethod
    def losses_and_more(self, denoise: DenoiseMore, x: Tensor, t: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Any]:
        """`losses` of a network that returns more than its output, and that, such as tokens for `REPA`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name and settings, as plain values."""
