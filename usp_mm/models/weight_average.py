"""The averaged copy of a generator's weights."""

from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(ExponentialMovingAverage):
    """MMEngine's average (same names in a state dict) of a module whose state is its parameters, from the first update on.

    MMEngine's own first update copies, and each of its updates waits for the device and launches a kernel a tensor.

    Args:
        model: starts the average.
        momentum: share of the current weights in an update, in (0, 1): 1 - decay.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        super().__init__(model, momentum)
        assert model.state_dict().keys() == dict(model.named_parameters()).keys()
        self._average = get_ema_multi_avg_fn(1 - momentum)

    def update_parameters(self, model: nn.Module) -> None:
        self._average(list(self.module.parameters()), list(model.parameters()), None)
        self.steps += 1
