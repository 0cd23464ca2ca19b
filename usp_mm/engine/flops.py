"""Floating-point operations of a training sample, counted without computing anything.

The network runs on meta tensors, which have shapes and no data: weights, buffers, gradients, memory and the
processes' random numbers stay as they are, and the count of a large model takes no longer than that of a small one.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from usp_mm.models import USP, USPClassifier

#: A batch of one would not pass a BatchNorm in training.
BATCH = 2


def count_flops(model: nn.Module) -> dict[str, int]:
    """Operations of one sample, a multiplication and an addition being two.

    Counted are the matrix products and convolutions of what is trained: the algorithm of pretraining (of the visible
    tokens, and the decoder), encoder and head of a classifier, the denoiser of a generator. The VAE is not.

    Returns:
        'forward', and 'train': forward and backward, without the optimizer and without what activation
        checkpointing computes twice; less than three times the forward pass where a part is frozen.

    Raises:
        TypeError: a model of another kind.
        ValueError: a backbone that holds the VAE.
    """
    network, arguments, keywords = _call_of(model)
    tensors = {
        name: torch.empty_like(tensor, device='meta').requires_grad_(tensor.requires_grad)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }
    recomputing = [module for module in network.modules() if getattr(module, 'with_cp', False)]
    for module in recomputing:
        module.with_cp = False
    try:
        # the mathematical kernel is the one whose products are counted on every device
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance('force_eager'), sdpa_kernel(SDPBackend.MATH):
            with FlopCounterMode(display=False) as counter, torch.enable_grad():
                out = functional_call(network, tensors, arguments, keywords)
                forward = counter.get_total_flops()
                loss = sum(x.float().sum() for x in (out.values() if isinstance(out, dict) else (out,)))
                trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
                torch.autograd.grad(loss, trained, allow_unused=True)
                train = counter.get_total_flops()
    finally:
        for module in recomputing:
            module.with_cp = True
    return dict(forward=forward // BATCH, train=train // BATCH)


def _call_of(model: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, str]]:
    """The network that is trained, and what to call it with."""
    if hasattr(model, 'denoiser'):
        indices = torch.zeros(BATCH, dtype=torch.int64, device='meta')
        return model.denoiser, (_latents(model.denoiser), indices, indices), {}
    if not isinstance(model, USP | USPClassifier):
        raise TypeError(f'no way to count the operations of a {type(model).__name__}')
    if getattr(model.backbone, 'codec', None) is not None:
        raise ValueError('the backbone holds the VAE, whose operations are not to be counted')
    return model, (_latents(model.backbone),), dict(mode='loss' if isinstance(model, USP) else 'tensor')


def _latents(network: nn.Module) -> Tensor:
    geometry = network.geometry
    return torch.empty(BATCH, geometry.channels, geometry.latent_size, geometry.latent_size, device='meta')
