"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) on some channels, within some times."""

import torch
from torch import Tensor, nn

from .objectives import Objective
from .objectives.base import Denoise


class Guidance:
    """uncond + scale·(cond - uncond) of the network's output.

    Args:
        scale: 1 leaves guidance out, at half the cost.
        channels: the first so many channels are guided, the others are the conditional ones; 3 is what official DiT and
            SiT do (of 4), None guides all of the latent's.
        interval: (low, high), times (both ends included) within which guidance applies: steps 0 … 999 for diffusion,
            0 (noise) … 1 (data) for flows; None: all.

    Raises:
        ValueError: an argument that makes no sense.
    """

    def __init__(self, scale: float = 1.0, channels: int | None = 3, interval: tuple[float, float] | None = None) -> None:
        if not scale >= 0:
            raise ValueError(f'guidance scale={scale} must be 0 or more; 1 is none')
        if channels is not None and channels < 1:
            raise ValueError(f'guidance channels={channels} must be at least 1, or None for all')
        if interval is not None and not (len(interval) == 2 and interval[0] <= interval[1]):
            raise ValueError(f'guidance interval={interval} must be (low, high) with low <= high')
        self.scale, self.channels, self.interval = float(scale), channels, interval

    @property
    def active(self) -> bool:
        """Whether anything is guided."""
        return self.scale != 1.0

    def denoise(self, network: nn.Module, label: Tensor, objective: Objective) -> Denoise:
        """(x [N, C, h, w], t [N]) -> float32 network output of labels int64[N], guided, as `objective.adapted` has it."""
        call = objective.adapted(network)

        def plain(x: Tensor, t: Tensor) -> Tensor:
            return call(x, t, label).float()

        if not self.active:
            return plain
        both = torch.cat([label, torch.full_like(label, network.null_label)])

        def guided(x: Tensor, t: Tensor) -> Tensor:
            if self.interval is not None and not self.interval[0] <= float(t[0]) <= self.interval[1]:
                return plain(x, t)
            cond, uncond = call(torch.cat([x, x]), torch.cat([t, t]), both).float().chunk(2)
            num = x.shape[1] if self.channels is None else min(self.channels, x.shape[1])
            mixed = uncond[:, :num] + self.scale * (cond[:, :num] - uncond[:, :num])
            return torch.cat([mixed, cond[:, num:]], dim=1)

        return guided

    def describe(self) -> dict[str, float | int | str | list[float] | None]:
        """Facts for reports."""
        interval = None if self.interval is None else list(self.interval)
        return dict(scale=self.scale, channels=self.channels, interval=interval) if self.active else dict(scale=1.0)
