"""Mixed precision without loss scaling, on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from usp_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """OptimWrapper whose forward runs under bfloat16 autocast, on GPU and on CPU.

    bfloat16 has float32's range, so there is no loss scale to lose steps or overflow. For float16
    (cards older than Ampere) use mmengine's `AmpOptimWrapper` with `loss_scale='dynamic'`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(get_device().split(':')[0], dtype=torch.bfloat16):
            yield
