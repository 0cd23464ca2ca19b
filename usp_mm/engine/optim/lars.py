"""LARS as the official linear probes run it (You et al., arXiv 1708.03888; MoCo v3 and MAE).

It differs from mmpretrain's `LARS` in two ways that matter: one-dimensional parameters (biases)
are neither decayed nor rescaled, and the momentum buffer holds gradients rather than updates
already multiplied by the learning rate, so warm-up does not distort it.
"""

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch.optim import Optimizer

from usp_mm.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class MAELARS(Optimizer):
    """Layer-wise adaptive rate scaling (LARS).

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate, > 0 (Table 12: 0.1 × batch / 256).
        weight_decay: Weight decay wd, added to the gradient of parameters with two or more dimensions.
        momentum: Momentum factor of the gradient buffer.
        trust_coefficient: Coefficient η of the local rate η · ‖w‖ / ‖g + wd·w‖.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
    ) -> None:
        if lr < 0 or momentum < 0 or weight_decay < 0:
            raise ValueError(f'lr={lr}, momentum={momentum} and weight_decay={weight_decay} must not be negative')
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, trust_coefficient=trust_coefficient))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group['params']:
                if param.grad is not None:
                    self._step_one(param, group)
        return loss

    def _step_one(self, param: torch.Tensor, group: dict) -> None:
        direction = param.grad
        assert direction is not None
        if param.ndim > 1:
            direction = direction.add(param, alpha=group['weight_decay'])
            param_norm, norm = param.norm(), direction.norm()
            rate = group['trust_coefficient'] * param_norm / norm
            direction = direction * torch.where((param_norm > 0) & (norm > 0), rate, torch.ones_like(rate))
        state = self.state[param]
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(param)
        buffer = state['momentum_buffer'].mul_(group['momentum']).add_(direction)
        param.add_(buffer, alpha=-group['lr'])
