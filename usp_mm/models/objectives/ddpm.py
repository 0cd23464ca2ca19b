"""DiT's objective (arXiv 2212.09748): noise prediction, with variances learned from the variational bound."""

from typing import Any

import torch
from torch import Tensor

from usp_mm.functional import ddpm
from usp_mm.registry import MODELS

from .base import DenoiseMore, Objective


@MODELS.register_module()
class DDPMObjective(Objective):
    """Mean squared error of the noise, plus the term of the variational bound (in bits) if the variance is learned.

    Args:
        num_steps, beta_start, beta_end: Number of steps, first and last β of the linear schedule.
        learn_sigma: Whether the second half of the network's channels gives the variance; otherwise the variance is β.

    Attributes:
        alpha_bar: ᾱ of each step, float64[num_steps], on the CPU.

    Raises:
        ValueError: The numbers do not define a schedule.
    """

    integer_times = True
    error = 'mse'

    def __init__(
        self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, learn_sigma: bool = True
    ) -> None:
        if num_steps < 2:
            raise ValueError(f'num_steps={num_steps} must be at least 2')
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(f'beta_start={beta_start}, beta_end={beta_end} must satisfy 0 < beta_start <= beta_end < 1')
        self.num_steps, self.beta_start, self.beta_end, self.learn_sigma = num_steps, beta_start, beta_end, learn_sigma
        self.alpha_bar = ddpm.linear_alpha_bar(num_steps, beta_start, beta_end)
        self._tables = {self.alpha_bar.device: (self.alpha_bar, ddpm.schedule(self.alpha_bar))}

    @property
    def left_out(self) -> tuple[str, ...]:
        return ('vb',) if self.learn_sigma else ()

    def out_channels(self, channels: int) -> int:
        return 2 * channels if self.learn_sigma else channels

    def draw_times(self, u: Tensor) -> Tensor:
        return (u.double() * self.num_steps).long()

    def time_grid(self, num: int) -> Tensor:
        if not 1 <= num <= self.num_steps:
            raise ValueError(f'{num} times of {self.num_steps} steps: ask for 1 to {self.num_steps}')
        return (2 * torch.arange(num) + 1) * self.num_steps // (2 * num)

    def split(self, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split the network's output into predicted noise and, if learned, variance (else None), float32[N, C, h, w] each."""
        if not self.learn_sigma:
            return out.float(), None
        eps, fraction = out.float().chunk(2, dim=1)
        return eps, fraction

    def losses_and_more(self, denoise: DenoiseMore, x: Tensor, t: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Any]:
        """'loss' = 'mse' + 'vb' (or only 'mse'); see `Objective`."""
        alpha_bar, schedule = self._on(x.device)
        x_t = ddpm.diffuse(x, alpha_bar[t], noise)
        out, more = denoise(x_t, t)
        eps, fraction = self.split(out)
        mse = (eps - noise).square().flatten(1).mean(1)
        if fraction is None:
            return dict(loss=mse, mse=mse.detach()), more
        vb = ddpm.vlb_bits(schedule.per_sample(t, x), t, x, x_t, eps, fraction)
        return dict(loss=mse + vb, mse=mse.detach(), vb=vb.detach()), more

    def _on(self, device: torch.device) -> tuple[Tensor, ddpm.Schedule]:
        if device not in self._tables:  # copied once, not in each step
            self._tables[device] = self.alpha_bar.to(device), ddpm.schedule(self.alpha_bar).to(device)
        return self._tables[device]

    def describe(self) -> dict[str, Any]:
        settings = ('num_steps', 'beta_start', 'beta_end', 'learn_sigma')
        return dict(name=type(self).__name__, **{key: getattr(self, key) for key in settings})
