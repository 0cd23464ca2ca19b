"""SiT's objective (arXiv 2401.08740): velocity, noise or score along a path, with LightningDiT's options (2501.01423)."""

from typing import Any

import torch
from torch import Tensor

from usp_mm.functional import flow
from usp_mm.presets import lookup
from usp_mm.registry import MODELS

from .base import DenoiseMore, Network, Objective

TIMES = ('uniform', 'logit_normal')
TIME_CONVENTIONS = ('data_at_1', 'noise_at_1')


@MODELS.register_module()
class FlowObjective(Objective):
    """Mean squared error of the network's prediction at times t in [0, 1], where 0 is noise and 1 is data.

    Args:
        path: 'linear', 'gvp' or 'vp', see `usp_mm.functional.flow`.
        prediction: What the network predicts, 'velocity', 'noise' or 'score'.
        weighting: Weights of a noise or score loss over time: those that make it equal to a 'velocity' loss, those of the
            'likelihood', or None.
        times: Distribution of t in training, 'uniform' or 'logit_normal'.
        logit_mean, logit_std: Mean and standard deviation of the logit of t, for 'logit_normal'.
        cosine_weight: Weight of the cosine distance between velocities, which is added to the loss; LightningDiT uses 1.
        time_convention: Convention of the network. 'data_at_1' is that of this package (SiT, LightningDiT). With 'noise_at_1'
            (REPA, arXiv 2410.06940) the network gets 1 - t, and its velocity points to the noise; objective, samplers and
            guidance still use t = 1 for data.

    Raises:
        ValueError: A name is unknown, or settings exclude each other.
    """

    integer_times = False
    error = 'flow'

    def __init__(
        self,
        path: str = 'linear',
        prediction: str = 'velocity',
        weighting: str | None = None,
        times: str = 'uniform',
        logit_mean: float = 0.0,
        logit_std: float = 1.0,
        cosine_weight: float = 0.0,
        time_convention: str = 'data_at_1',
    ) -> None:
        self.coefficients = lookup(flow.PATHS, path, 'path')
        lookup(dict.fromkeys(flow.PREDICTIONS), prediction, 'prediction')
        lookup(dict.fromkeys(TIMES), times, 'times')
        lookup(dict.fromkeys(TIME_CONVENTIONS), time_convention, 'time_convention')
        if weighting is not None:
            lookup(dict.fromkeys(flow.WEIGHTINGS), weighting, 'weighting')
            if prediction == 'velocity':
                raise ValueError(f"weighting='{weighting}' weighs noise or score: with prediction='velocity' it must be None")
        if cosine_weight < 0 or (cosine_weight and prediction != 'velocity'):
            raise ValueError(
                f"cosine_weight={cosine_weight} must be 0 or more, and 0 with prediction='{prediction}': it compares velocities"
            )
        if logit_std <= 0:
            raise ValueError(f'logit_std={logit_std} must be positive')
        self.path, self.prediction, self.weighting, self.times = path, prediction, weighting, times
        self.logit_mean, self.logit_std, self.cosine_weight = logit_mean, logit_std, cosine_weight
        self.time_convention = time_convention

    @property
    def left_out(self) -> tuple[str, ...]:
        return ('cosine',) if self.cosine_weight else ()

    def out_channels(self, channels: int) -> int:
        return channels

    def draw_times(self, u: Tensor) -> Tensor:
        first, last = flow.train_interval(self.path, self.prediction)
        if self.times == 'logit_normal':
            u = flow.logit_normal(u, self.logit_mean, self.logit_std)
        return first + (last - first) * u

    def time_grid(self, num: int) -> Tensor:
        if num < 1:
            raise ValueError(f'{num} times: ask for at least 1')
        first, last = flow.train_interval(self.path, self.prediction)
        return (first + (last - first) * (2 * torch.arange(num, dtype=torch.float64) + 1) / (2 * num)).float()

    def network_times(self, t: Tensor | float) -> Any:
        return t if self.time_convention == 'data_at_1' else 1 - t

    def adapted(self, network: Network) -> Network:
        if self.time_convention == 'data_at_1':
            return network
        return lambda x, t, *args, **kwargs: self._answer(network(x, self.network_times(t), *args, **kwargs))

    def _answer(self, out: Tensor) -> Tensor:
        """The network's output with this package's sign; noise and score don't depend on the direction of time."""
        return -out if self.time_convention == 'noise_at_1' and self.prediction == 'velocity' else out

    def losses_and_more(self, denoise: DenoiseMore, x: Tensor, t: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Any]:
        """'loss' = 'flow' + cosine_weight·'cosine' (without the second term if its weight is 0); see `Objective`."""
        c = self.coefficients(t.double())
        x_t, u_t = flow.interpolate(c, x, noise)
        out, more = denoise(x_t, self.network_times(t))
        out = self._answer(out).float()
        if self.prediction == 'velocity':
            error = out - u_t
        elif self.prediction == 'noise':
            error = out - noise
        else:
            error = out * flow.per_sample(c.sigma, x) + noise
        weight = flow.loss_weight(c, self.weighting).to(x.dtype)
        loss = weight * error.square().flatten(1).mean(1)
        parts = dict(flow=loss.detach())
        if self.cosine_weight:
            cosine = flow.cosine_distance(out, u_t)
            loss, parts['cosine'] = loss + self.cosine_weight * cosine, cosine.detach()
        return dict(loss=loss, **parts), more

    def describe(self) -> dict[str, Any]:
        settings = ['path', 'prediction', 'weighting', 'times', 'cosine_weight']
        if self.times == 'logit_normal':
            settings += ['logit_mean', 'logit_std']
        if self.time_convention != 'data_at_1':
            settings.append('time_convention')
        return dict(name=type(self).__name__, **{key: getattr(self, key) for key in settings})
