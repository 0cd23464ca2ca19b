"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) on some channels, within some times."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from .cuda_graph import GraphedCall, pays_off
from .objectives import Objective
from .objectives.base import times


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

    def applies(self, time: float | None) -> bool:
        """Whether a time is guided; None stands for any, where there is no interval."""
        if not self.active or self.interval is None:
            return self.active
        assert time is not None
        return self.interval[0] <= np.float32(time) <= self.interval[1]  # float32, as the network is told

    def mixed(self, cond: Tensor, uncond: Tensor, latent_channels: int) -> Tensor:
        """Outputs with and without class, float32[N, C or 2C, h, w], C the latent's -> the guided one."""
        num = latent_channels if self.channels is None else min(self.channels, latent_channels)
        mixed = uncond[:, :num] + self.scale * (cond[:, :num] - uncond[:, :num])
        return torch.cat([mixed, cond[:, num:]], dim=1)

    def denoise(self, network: nn.Module, label: Tensor, objective: Objective, cuda_graph: bool = False) -> 'GuidedDenoiser':
        """The network for labels int64[N], guided, with times and signs as `objective.adapted` has them."""
        return GuidedDenoiser(self, network, label, objective, cuda_graph)

    def describe(self) -> dict[str, float | int | str | list[float] | None]:
        """Facts for reports."""
        interval = None if self.interval is None else list(self.interval)
        return dict(scale=self.scale, channels=self.channels, interval=interval) if self.active else dict(scale=1.0)


class GuidedDenoiser:
    """(x [N, C, h, w], t [N]) -> float32 network output; samplers, whose samples share a time, call `at`.

    Args:
        guidance: what to mix, and when.
        network: a `DiT`, or any module called with (x, t, y).
        label: int64[N].
        objective: what the network was trained for.
        cuda_graph: record `at` where that pays off.
    """

    def __init__(
        self, guidance: Guidance, network: nn.Module, label: Tensor, objective: Objective, cuda_graph: bool = False
    ) -> None:
        self.guidance, self.call = guidance, objective.adapted(network)
        self.shares_conditions = getattr(network, 'shares_conditions', False)
        self.label, self.rows = label, torch.arange(len(label), device=label.device)
        self.graphed = cuda_graph and pays_off(label.device, len(label))
        self.graphs: dict[bool, GraphedCall] = {}  # guided and not
        if guidance.active:  # no class is one condition, however many samples
            null_label = network.null_label
            assert isinstance(null_label, int)
            self.label = torch.cat([label, label.new_full((1,), null_label)])
            self.rows = torch.cat([self.rows, torch.full_like(self.rows, len(label))])

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Times of each sample; with an interval the first one decides, and is waited for."""
        guided = self.guidance.applies(None if self.guidance.interval is None else float(t[0]))
        return self._output(x, guided, lambda x, label, rows: self.call(x, t.repeat(len(x) // len(t)), label[rows]))

    def at(self, x: Tensor, time: float) -> Tensor:
        """At one time for all samples, a number: nothing waits for the device, and each condition is embedded once."""
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
