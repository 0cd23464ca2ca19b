"""The weights that sampling in bfloat16 computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .dit import DiT

#: Layers whose weights autocast casts. All others of a DiT stay in float32, as do residual stream, norms and softmax.
_CAST = (nn.Linear, nn.Conv2d)


@contextmanager
def bfloat16_weights(network: nn.Module) -> Iterator[None]:
    """Context that casts weights to bfloat16 once, instead of in every call under autocast.

    Use it under bfloat16 autocast, whose outputs it does not change. Within the context, a `DiT` also holds the modulation
    weights of all its blocks in one tensor and multiplies by them once. No parameter requires gradients there, so that compiled
    graphs serve trained and averaged weights alike. On exit the original parameters are back. Nested contexts cast once.

    Args:
        network: Network whose linear layers and convolutions hold bfloat16 copies within the context. Don't train or save it
            there.
    """
    modules = list(network.modules())
    before = [dict(module._parameters) for module in modules]
    stacked = network if isinstance(network, DiT) and network.stacked_modulation is None else None
    try:
        if stacked is not None:
            _stack_modulation(stacked)
        for module in modules:
            _freeze(module, torch.bfloat16 if isinstance(module, _CAST) else None)
        yield
    finally:
        for module, parameters in zip(modules, before, strict=True):
            module._parameters.update(parameters)
        if stacked is not None:
            stacked.stacked_modulation = None


def _stack_modulation(network: DiT) -> None:
    """Stack the modulation weights of all blocks; the blocks' own weights become views, so nothing is held twice."""
    layers = [block.get_submodule('adaLN_modulation.1') for block in network.blocks]
    stacked = [torch.cat([getattr(layer, name).detach().to(torch.bfloat16) for layer in layers]) for name in ('weight', 'bias')]
    for name, whole in zip(('weight', 'bias'), stacked, strict=True):
        for layer, part in zip(layers, whole.chunk(len(layers)), strict=True):
            layer._parameters[name] = _frozen(part)
    network.stacked_modulation = (stacked[0], stacked[1])


def _freeze(module: nn.Module, dtype: torch.dtype | None) -> None:
    for name, value in module._parameters.items():
        if value is not None and (value.requires_grad or dtype not in (None, value.dtype)):
            module._parameters[name] = _frozen(value.detach().to(dtype or value.dtype))


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
