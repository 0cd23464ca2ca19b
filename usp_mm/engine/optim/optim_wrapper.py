"""AutocastOptimWrapper: mixed precision without loss scaling, on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from usp_mm.functional.attention import fast_attention
from usp_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """OptimWrapper whose forward runs under bfloat16 autocast, on GPU and on CPU, with `fast_attention`.

    bfloat16 has float32's range, so there is no loss scale to lose steps or overflow. For float16
    (cards older than Ampere) use mmengine's `AmpOptimWrapper` with `loss_scale='dynamic'`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = torch.device(get_device())
        with super().optim_context(model), torch.autocast(device.type, dtype=torch.bfloat16), fast_attention(device):
            yield
