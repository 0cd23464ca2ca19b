"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), optionally limited to some channels and times."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from .cuda_graph import GraphedCall, pays_off
from .objectives import Objective
from .objectives.base import times


class Guidance:
    """Guides the network's output: uncond + scale·(cond - uncond).

    Args:
        scale: Strength of the guidance. 1 turns it off, which halves the cost.
        channels: Number of leading channels that are guided; the others keep the conditional output. The official DiT and SiT
            guide 3 of 4. None guides all channels of the latent.
        interval: Times (low, high), both included, between which guidance applies: steps 0 … 999 for diffusion, 0 (noise) … 1
            (data) for flows. None guides at all times.

    Raises:
        ValueError: An argument is out of range.
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

    def applies(self, time: float | None) -> bool:
        """Whether guidance applies at this time. `time` may be None if there is no interval."""
        if not self.active or self.interval is None:
            return self.active
        assert time is not None
        return self.interval[0] <= np.float32(time) <= self.interval[1]  # in float32, as the network gets it

    def mixed(self, cond: Tensor, uncond: Tensor, latent_channels: int) -> Tensor:
        """Outputs with and without class, float32[N, C or 2C, h, w] for C latent channels -> the guided output."""
        num = latent_channels if self.channels is None else min(self.channels, latent_channels)
        mixed = uncond[:, :num] + self.scale * (cond[:, :num] - uncond[:, :num])
        return torch.cat([mixed, cond[:, num:]], dim=1)

    def denoise(self, network: nn.Module, label: Tensor, objective: Objective, cuda_graph: bool = False) -> 'GuidedDenoiser':
        """The guided network for labels int64[N], with the times and signs of `objective.adapted`."""
        return GuidedDenoiser(self, network, label, objective, cuda_graph)

    def describe(self) -> dict[str, float | int | str | list[float] | None]:
        """Settings for reports, as plain values."""
        interval = None if self.interval is None else list(self.interval)
        return dict(scale=self.scale, channels=self.channels, interval=interval) if self.active else dict(scale=1.0)


class GuidedDenoiser:
    """The network with guidance: (x [N, C, h, w], t [N]) -> float32 output.

    Samplers call `at` instead, since all their samples share one time.

    Args:
        guidance: How and when to guide.
        network: A `DiT`, or any module that is called with (x, t, y).
        label: Classes, int64[N].
        objective: The objective that the network was trained with.
        cuda_graph: Whether to record `at` as CUDA graphs where that is faster.
    """

    def __init__(
        self, guidance: Guidance, network: nn.Module, label: Tensor, objective: Objective, cuda_graph: bool = False
    ) -> None:
        self.guidance, self.call = guidance, objective.adapted(network)
        self.shares_conditions = getattr(network, 'shares_conditions', False)
        self.label, self.rows = label, torch.arange(len(label), device=label.device)
        self.graphed = cuda_graph and pays_off(label.device, len(label))
        self.graphs: dict[bool, GraphedCall] = {}  # key: whether guided
        if guidance.active:  # "no class" is one condition that all samples share
            null_label = network.null_label
            assert isinstance(null_label, int)
            self.label = torch.cat([label, label.new_full((1,), null_label)])
            self.rows = torch.cat([self.rows, torch.full_like(self.rows, len(label))])

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Output for one time per sample. With an interval, the first time decides for all and is copied to the CPU."""
        guided = self.guidance.applies(None if self.guidance.interval is None else float(t[0]))
        return self._output(x, guided, lambda x, label, rows: self.call(x, t.repeat(len(x) // len(t)), label[rows]))

    def at(self, x: Tensor, time: float) -> Tensor:
        """Output at one time for all samples, without waiting for the device; each condition is embedded only once."""
        guided, t = self.guidance.applies(time), times(x, 1 if self.shares_conditions else len(x), time)
        if not self.graphed:
            return self._at(guided, x, t)
        if guided not in self.graphs:
            self.graphs[guided] = GraphedCall(partial(self._at, guided))
        return self.graphs[guided](x, t)

    def _at(self, guided: bool, x: Tensor, t: Tensor) -> Tensor:
        def call(x: Tensor, label: Tensor, rows: Tensor) -> Tensor:
            if self.shares_conditions:
                return self.call(x, t, label, rows=rows)
            return self.call(x, t.repeat(len(x) // len(t)), label[rows])

        return self._output(x, guided, call)

    def _output(self, x: Tensor, guided: bool, call: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        num = len(x)
        if not guided:
            return call(x, self.label[:num], self.rows[:num]).float()
        cond, uncond = call(torch.cat([x, x]), self.label, self.rows).float().chunk(2)
        return self.guidance.mixed(cond, uncond, x.shape[1])
