"""The exponential moving average (EMA) of a generator's weights."""

from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(ExponentialMovingAverage):
    """MMEngine's exponential moving average, with faster updates, for a module that has parameters but no buffers.

    Names in the state dict are MMEngine's. Unlike MMEngine's, the first update averages instead of copying, and an update
    neither waits for the device nor launches a kernel for each tensor.

    Args:
        model: Module whose weights start the average.
        momentum: Share of the current weights in an update, in (0, 1); 1 - decay.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        super().__init__(model, momentum)
        assert model.state_dict().keys() == dict(model.named_parameters()).keys()
        self._average = get_ema_multi_avg_fn(1 - momentum)

    def update_parameters(self, model: nn.Module) -> None:
        self._average(list(self.module.parameters()), list(model.parameters()), None)
        self.steps += 1
